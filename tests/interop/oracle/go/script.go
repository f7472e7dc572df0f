// The script language: text in, flat instructions out. Its words are told in ../README.md; ../script.py is its twin.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Limits of one file, so that a slip in a script is a message and not a hang.
const (
	maxFileBytes  = 1 << 20
	maxLineBytes  = 200
	maxBlockDepth = 16
)

// script is one compiled script.
type script struct {
	name    string
	byTask  bool // only the order inside each task is compared ("order: tasks")
	handoff bool // netchan is allowed the traces without settle as well ("differs: handoff")
	tasks   map[string]*proc
}

// proc is the code of one kind of task.
type proc struct {
	name   string
	params []string
	code   []ins
}

// ins is one instruction; to is where a jump goes.
type ins struct {
	op   string
	args []string
	to   int
	arms []arm
}

// arm is one case of a select; to is where its body begins.
type arm struct {
	kind string // recv send after default
	args []string
	to   int
}

// arity: least and most number of words behind each word of the language.
var arity = map[string][2]int{
	"make": {2, 2}, "send": {2, 4}, "trysend": {3, 3}, "recv": {1, 3}, "tryrecv": {3, 3}, "close": {1, 1},
	"range": {2, 2}, "loop": {0, 0}, "for": {3, 3}, "if": {1, 3}, "else": {0, 0}, "end": {0, 0}, "break": {0, 0},
	"return": {0, 0}, "select": {0, 0}, "case": {1, 5}, "spawn": {1, 9}, "join": {1, 9}, "let": {2, 4},
	"settle": {0, 0}, "sleep": {1, 1}, "len": {2, 2}, "cap": {2, 2}, "print": {0, 40},
}

var armArity = map[string][2]int{"recv": {1, 3}, "send": {2, 4}, "after": {1, 1}, "default": {0, 0}}

// block is one that waits for its end.
type block struct {
	word   string
	head   int   // first instruction
	exits  []int // jumps behind the end
	orElse int   // the test whose false branch is still open, or -1
}

// readScripts compiles every script of one file, in order.
func readScripts(path string) ([]*script, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(text) > maxFileBytes {
		return nil, fmt.Errorf("%s: more than %d bytes", path, maxFileBytes)
	}
	reader := &reader{file: filepath.Base(path)}
	for i, line := range strings.Split(string(text), "\n") {
		reader.line = i + 1
		if err := reader.feed(line); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", reader.file, reader.line, err)
		}
	}
	if err := reader.endScript(); err != nil {
		return nil, fmt.Errorf("%s: %w", reader.file, err)
	}
	return reader.done, nil
}

type reader struct {
	file   string
	line   int
	done   []*script
	now    *script
	task   *proc
	blocks []*block
	hidden int // counters made for variables that no script can name
}

func (r *reader) feed(line string) error {
	if len(line) > maxLineBytes {
		return fmt.Errorf("more than %d bytes in a line", maxLineBytes)
	}
	line = strings.TrimSpace(line)
	if line == "" || strings.HasPrefix(line, "#") {
		return nil
	}
	if strings.HasPrefix(line, "== ") {
		name := line[3:]
		if err := r.endScript(); err != nil {
			return err
		}
		for _, other := range r.done {
			if other.name == name {
				return fmt.Errorf("a second script %q", name)
			}
		}
		r.now = &script{name: name, tasks: map[string]*proc{}}
		return nil
	}
	if r.now == nil {
		return fmt.Errorf("a line before the first ==")
	}
	words := strings.Fields(line)
	if r.task == nil && strings.HasSuffix(words[0], ":") {
		return r.header(words)
	}
	if words[0] == "task" {
		return r.beginTask(words[1:])
	}
	if r.task == nil {
		return fmt.Errorf("%q outside a task", words[0])
	}
	return r.statement(words)
}

func (r *reader) header(words []string) error {
	switch strings.Join(words, " ") {
	case "order: tasks":
		r.now.byTask = true
	case "differs: handoff":
		r.now.handoff = true
	case "needs: one process", "needs: channels in values": // for carriers; Go's channels have both
	default:
		if words[0] != "about:" {
			return fmt.Errorf("unknown header %q", words[0])
		}
	}
	return nil
}

func (r *reader) beginTask(words []string) error {
	if err := r.endTask(); err != nil {
		return err
	}
	if len(words) == 0 || r.now.tasks[words[0]] != nil {
		return fmt.Errorf("a task needs a name of its own")
	}
	r.task = &proc{name: words[0], params: words[1:]}
	r.now.tasks[words[0]] = r.task
	return nil
}

func (r *reader) endTask() error {
	if len(r.blocks) > 0 {
		return fmt.Errorf("%s without end", r.blocks[len(r.blocks)-1].word)
	}
	if r.task != nil {
		r.emit(ins{op: "return"})
	}
	r.task = nil
	return nil
}

func (r *reader) endScript() error {
	if err := r.endTask(); err != nil {
		return err
	}
	if r.now != nil {
		if main := r.now.tasks["main"]; main == nil || len(main.params) > 0 {
			return fmt.Errorf("script %q has no task main without parameters", r.now.name)
		}
		for _, task := range r.now.tasks {
			for _, one := range task.code {
				if one.op != "spawn" {
					continue
				}
				if started := r.now.tasks[one.args[1]]; started == nil || len(started.params) != len(one.args)-2 {
					return fmt.Errorf("script %q: spawn of %q does not fit", r.now.name, one.args[1])
				}
			}
		}
		r.done = append(r.done, r.now)
	}
	r.now = nil
	return nil
}

// emit appends an instruction and returns its place.
func (r *reader) emit(one ins) int {
	r.task.code = append(r.task.code, one)
	return len(r.task.code) - 1
}

func (r *reader) here() int { return len(r.task.code) }

func (r *reader) open(one *block) error {
	if len(r.blocks) == maxBlockDepth {
		return fmt.Errorf("more than %d blocks in each other", maxBlockDepth)
	}
	r.blocks = append(r.blocks, one)
	return nil
}

func (r *reader) statement(words []string) error {
	word, args := words[0], words[1:]
	limits, known := arity[word]
	if !known || len(args) < limits[0] || len(args) > limits[1] {
		return fmt.Errorf("unknown word or wrong number of words: %q", strings.Join(words, " "))
	}
	var top *block
	if len(r.blocks) > 0 {
		top = r.blocks[len(r.blocks)-1]
	}
	if top != nil && top.word == "select" && len(r.task.code[top.head].arms) == 0 && word != "case" && word != "end" {
		return fmt.Errorf("%q between select and its first case", word)
	}
	switch word {
	case "loop":
		return r.open(&block{word: word, head: r.here(), orElse: -1})
	case "range":
		r.hidden++
		ok := fmt.Sprintf("$ok%d", r.hidden)
		head := r.emit(ins{op: "recv", args: []string{args[0], args[1], ok}})
		test := r.emit(ins{op: "unless", args: []string{ok}})
		return r.open(&block{word: word, head: head, exits: []int{test}, orElse: -1})
	case "for": // the end is computed once
		r.hidden++
		last := fmt.Sprintf("$last%d", r.hidden)
		r.emit(ins{op: "let", args: []string{last, args[2]}})
		r.emit(ins{op: "let", args: []string{args[0], args[1], "-", "1"}})
		head := r.emit(ins{op: "let", args: []string{args[0], args[0], "+", "1"}})
		over := fmt.Sprintf("$over%d", r.hidden)
		r.emit(ins{op: "let", args: []string{over, args[0], "<=", last}})
		test := r.emit(ins{op: "unless", args: []string{over}})
		return r.open(&block{word: word, head: head, exits: []int{test}, orElse: -1})
	case "if":
		r.hidden++
		holds := fmt.Sprintf("$if%d", r.hidden)
		r.emit(ins{op: "let", args: append([]string{holds}, args...)})
		test := r.emit(ins{op: "unless", args: []string{holds}})
		return r.open(&block{word: word, orElse: test})
	case "else":
		if top == nil || top.word != "if" || top.orElse < 0 {
			return fmt.Errorf("else without if")
		}
		top.exits = append(top.exits, r.emit(ins{op: "jump"}))
		r.task.code[top.orElse].to = r.here()
		top.orElse = -1
	case "select":
		return r.open(&block{word: word, head: r.emit(ins{op: "select"}), orElse: -1})
	case "case":
		limits, known := armArity[args[0]]
		if top == nil || top.word != "select" || !known || len(args)-1 < limits[0] || len(args)-1 > limits[1] {
			return fmt.Errorf("case without select, or no such arm: %q", strings.Join(words, " "))
		}
		if len(r.task.code[top.head].arms) > 0 {
			top.exits = append(top.exits, r.emit(ins{op: "jump"}))
		}
		one := arm{kind: args[0], args: args[1:], to: r.here()}
		r.task.code[top.head].arms = append(r.task.code[top.head].arms, one)
	case "break":
		for i := len(r.blocks) - 1; i >= 0; i-- {
			if inner := r.blocks[i]; inner.word == "loop" || inner.word == "range" || inner.word == "for" {
				inner.exits = append(inner.exits, r.emit(ins{op: "jump"}))
				return nil
			}
		}
		return fmt.Errorf("break outside a loop")
	case "end":
		if top == nil {
			return fmt.Errorf("end without a block")
		}
		if top.word == "loop" || top.word == "range" || top.word == "for" {
			r.emit(ins{op: "jump", to: top.head})
		}
		if top.orElse >= 0 {
			r.task.code[top.orElse].to = r.here()
		}
		if top.word == "select" {
			r.task.code[top.head].to = r.here()
		}
		for _, exit := range top.exits {
			r.task.code[exit].to = r.here()
		}
		r.blocks = r.blocks[:len(r.blocks)-1]
	case "spawn": // "spawn worker c" is short for "spawn worker = worker c"
		if len(args) < 3 || args[1] != "=" {
			args = append([]string{args[0], "="}, args...)
		}
		r.emit(ins{op: "spawn", args: append([]string{args[0]}, args[2:]...)})
	case "print":
		r.emit(ins{op: "print", args: []string{strings.Join(args, " ")}})
	default:
		r.emit(ins{op: word, args: args})
	}
	return nil
}

// value is nil, an int, a string or a channel of either player.
type value = any

// env holds the variables of one task.
type env map[string]value

func (e env) atom(word string) value {
	if number, err := strconv.Atoi(word); err == nil {
		return number
	}
	if word == "nil" {
		return nil
	}
	if len(word) >= 2 && word[0] == '"' {
		return strings.Trim(word, "\"")
	}
	found, known := e[word]
	if !known {
		panic(fmt.Sprintf("no variable %q", word))
	}
	return found
}

// eval computes "atom" or "atom operator atom"; a comparison gives 1 or 0.
func (e env) eval(words []string) value {
	left := e.atom(words[0])
	if len(words) == 1 {
		return left
	}
	right := e.atom(words[2])
	switch words[1] {
	case "==":
		return truth(left == right)
	case "!=":
		return truth(left != right)
	}
	a, b := left.(int), right.(int)
	switch words[1] {
	case "+":
		return a + b
	case "-":
		return a - b
	case "*":
		return a * b
	case "%":
		return a % b
	case "<":
		return truth(a < b)
	case "<=":
		return truth(a <= b)
	}
	panic("no operator " + words[1])
}

func truth(yes bool) value {
	if yes {
		return 1
	}
	return 0
}

// fill replaces $name in a text by the value of the variable.
func (e env) fill(text string) string {
	var out strings.Builder
	for i := 0; i < len(text); {
		if text[i] != '$' {
			out.WriteByte(text[i])
			i++
			continue
		}
		end := i + 1
		for end < len(text) && (text[end] == '_' || text[end] >= '0' && text[end] <= '9' || text[end]|32 >= 'a' && text[end]|32 <= 'z') {
			end++
		}
		out.WriteString(show(e.atom(text[i+1 : end])))
		i = end
	}
	return out.String()
}

func show(one value) string {
	switch v := one.(type) {
	case nil:
		return "nil"
	case int:
		return strconv.Itoa(v)
	case string:
		return v
	}
	return "channel"
}

// set keeps a received value; "_" and a missing name keep nothing.
func (e env) set(args []string, at int, v value) {
	if at < len(args) && args[at] != "_" {
		e[args[at]] = v
	}
}

const (
	panicSend  = "panic: send on closed channel"
	panicClose = "panic: close of closed channel"
)

// blockedLine is how a task that waits for ever shows in the trace.
func blockedLine(task string, one *ins, live bool) string {
	what := one.op
	switch {
	case one.op == "select" && !live:
		what = "select without a live arm"
	case one.op == "send" || one.op == "recv" || one.op == "join":
		what += " " + one.args[0]
	}
	return "blocked: " + task + " " + what
}

// arrange gives the lines of a trace their final order: as they came, or task by task.
func arrange(events []event, blocked []string, byTask bool) string {
	lines := make([]string, 0, len(events)+len(blocked))
	if byTask {
		events = sortedByTask(events)
	}
	for _, one := range events {
		lines = append(lines, one.task+": "+one.text)
	}
	return strings.Join(append(lines, sorted(blocked)...), "\n")
}
