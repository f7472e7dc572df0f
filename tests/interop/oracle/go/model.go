// Every trace a script can have: a walk over all schedules of a small model of Go's channels.
//
// One operation on a channel is one step, done by the rules of the language and, where those leave it open, of Go's own
// runtime: whoever waits is served first come first, and the step that makes a waiting operation possible completes it
// (a value goes straight to the task that waits). Free are: which task goes next, and which ready arm a select takes.
// Timers fire when nothing else can happen. What the runtime really does must be in this set: main.go compares.
package main

import (
	"fmt"
	"sort"
	"strings"
)

const maxStates = 400_000

type mchan struct {
	cap    int
	closed bool
	buf    []value
	recvq  []waiter
	sendq  []waiter
}

// ref is a channel of the model: its place in state.chans.
type ref int

// waiter is one arm (or single operation) of a parked task.
type waiter struct {
	task int
	arm  int // -1: not a select
	v    value
}

type mtask struct {
	name   string
	proc   *proc
	pc     int
	env    env
	parked bool
	done   bool
	live   bool
	timed  bool   // a timer can wake it
	timer  int    // units until then
	arm    int    // which arm of the select is the timer
	owed   string // a panic to show before anything else
}

type state struct {
	tasks []*mtask
	chans []*mchan
}

// model walks one script; loose takes settle for nothing, as the memory model knows no "everybody is waiting".
type model struct {
	script *script
	loose  bool
	memo   map[string]map[string]bool
	walked map[string]bool
}

// enumerate returns the sorted traces and the number of states.
func enumerate(s *script, loose bool) (traces []string, states int, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = fmt.Errorf("%s: %v", s.name, reason)
		}
	}()
	m := &model{script: s, loose: loose, memo: map[string]map[string]bool{}, walked: map[string]bool{}}
	start := &state{tasks: []*mtask{{name: "main", proc: s.tasks["main"], env: env{}}}}
	for suffix := range m.walk(start) {
		traces = append(traces, finish(suffix, s.byTask))
	}
	return sorted(traces), len(m.memo), nil
}

// Between steps a trace is kept as text: a line per event, "task\x00text", and blocked lines behind.
func finish(suffix string, byTask bool) string {
	var events []event
	var blocked []string
	for _, line := range strings.Split(suffix, "\n") {
		if task, text, isEvent := cut(line, "\x00"); isEvent {
			events = append(events, event{task, text})
		} else if line != "" {
			blocked = append(blocked, line)
		}
	}
	return arrange(events, blocked, byTask)
}

func cut(line, at string) (string, string, bool) {
	if i := strings.Index(line, at); i >= 0 {
		return line[:i], line[i+len(at):], true
	}
	return line, "", false
}

// before puts an event in front of a trace; where only the order inside a task counts, in the place of its task, so that
// traces that differ in nothing else are one.
func (m *model) before(one event, suffix string) string {
	line := one.task + "\x00" + one.text
	if suffix == "" {
		return line
	}
	if !m.script.byTask {
		return line + "\n" + suffix
	}
	lines := strings.Split(suffix, "\n")
	at := 0
	for at < len(lines) {
		task, _, isEvent := cut(lines[at], "\x00")
		if !isEvent || task >= one.task {
			break
		}
		at++
	}
	lines = append(lines[:at], append([]string{line}, lines[at:]...)...)
	return strings.Join(lines, "\n")
}

// step is one way to go on: the events it shows, in order, and where it leads.
type step struct {
	events []event
	to     *state
}

func (m *model) walk(s *state) map[string]bool {
	var shown []event
	m.settleLocals(s, &shown)
	key := s.key()
	found, known := m.memo[key]
	if !known {
		if m.walked[key] {
			panic("can go round in a circle")
		}
		if len(m.walked) == maxStates {
			panic(fmt.Sprintf("more than %d states", maxStates))
		}
		m.walked[key] = true
		found = map[string]bool{}
		steps := m.steps(s)
		if steps == nil {
			var blocked []string
			for _, t := range s.tasks {
				if !t.done {
					blocked = append(blocked, blockedLine(t.name, &t.proc.code[t.pc], t.live))
				}
			}
			found[strings.Join(sorted(blocked), "\n")] = true
		}
		for _, one := range steps {
			for suffix := range m.walk(one.to) {
				for i := len(one.events) - 1; i >= 0; i-- {
					suffix = m.before(one.events[i], suffix)
				}
				found[suffix] = true
			}
		}
		m.memo[key] = found
	}
	if len(shown) == 0 {
		return found
	}
	out := make(map[string]bool, len(found))
	for suffix := range found {
		for i := len(shown) - 1; i >= 0; i-- {
			suffix = m.before(shown[i], suffix)
		}
		out[suffix] = true
	}
	return out
}

// settleLocals runs what no other task can see, so that it costs no branch.
func (m *model) settleLocals(s *state, shown *[]event) {
	for again := true; again; {
		again = false
		for i := 0; i < len(s.tasks); i++ {
			for m.local(s, s.tasks[i], shown) {
				again = true
			}
		}
	}
}

func (m *model) local(s *state, t *mtask, shown *[]event) bool {
	if t.done || t.parked {
		return false
	}
	if t.owed != "" {
		if m.script.byTask {
			*shown = append(*shown, event{t.name, t.owed})
			t.owed = ""
			return true
		}
		return false
	}
	one := &t.proc.code[t.pc]
	args := one.args
	switch one.op {
	case "return":
		t.done, t.env = true, nil
	case "jump":
		t.pc = one.to - 1
	case "unless":
		if t.env[args[0]] == 0 {
			t.pc = one.to - 1
		}
	case "let":
		t.env[args[0]] = t.env.eval(args[1:])
	case "make":
		s.chans = append(s.chans, &mchan{cap: t.env.atom(args[1]).(int)})
		t.env[args[0]] = ref(len(s.chans) - 1)
	case "spawn":
		p := m.script.tasks[args[1]]
		fresh := env{}
		for i, param := range p.params {
			fresh[param] = t.env.atom(args[2+i])
		}
		s.tasks = append(s.tasks, &mtask{name: t.env.fill(args[0]), proc: p, env: fresh})
	case "join":
		for _, name := range args {
			if !s.named(t.env.fill(name)).done {
				return false
			}
		}
	case "print":
		if !m.script.byTask {
			return false
		}
		*shown = append(*shown, event{t.name, t.env.fill(args[0])})
	case "settle":
		if !m.loose {
			return false
		}
	default:
		return false
	}
	if !t.done {
		t.pc++
	}
	return true
}

func (s *state) named(name string) *mtask {
	for _, t := range s.tasks {
		if t.name == name {
			return t
		}
	}
	panic("no task " + name)
}

// waits is true of a task that cannot go on by itself.
func (s *state) waits(t *mtask) bool {
	return t.done || t.parked || t.owed == "" && t.proc.code[t.pc].op == "join"
}

// steps lists every way to go on; nil if there is none.
func (m *model) steps(s *state) []step {
	var out []step
	for i, t := range s.tasks {
		if s.waits(t) {
			continue
		}
		if t.owed == "" && t.proc.code[t.pc].op == "settle" {
			alone := true
			for j, other := range s.tasks {
				alone = alone && (i == j || s.waits(other))
			}
			if !alone {
				continue
			}
		}
		arms := []int{-1}
		if t.owed == "" && t.proc.code[t.pc].op == "select" {
			arms = s.ready(t)
		}
		for _, arm := range arms {
			next := s.clone()
			one := step{to: next}
			one.events = next.do(i, arm)
			out = append(out, one)
		}
	}
	if out != nil {
		return out
	}
	first := -1
	for _, t := range s.tasks {
		if t.timed && (first < 0 || t.timer < first) {
			first = t.timer
		}
	}
	for i, t := range s.tasks {
		if t.timed && t.timer == first {
			next := s.clone()
			for _, other := range next.tasks {
				if other.timed {
					other.timer -= first
				}
			}
			next.fire(i)
			out = append(out, step{to: next})
		}
	}
	return out
}

// fire wakes a task by its timer.
func (s *state) fire(i int) {
	t := s.tasks[i]
	one := &t.proc.code[t.pc]
	to := t.pc + 1
	if one.op == "select" {
		to = one.arms[t.arm].to
	}
	s.wake(i, to)
}

// wake takes a task out of every queue and lets it go on at pc.
func (s *state) wake(i, pc int) {
	for _, c := range s.chans {
		c.recvq, c.sendq = without(c.recvq, i), without(c.sendq, i)
	}
	t := s.tasks[i]
	t.parked, t.timed, t.timer, t.pc, t.live = false, false, 0, pc, false
}

func without(queue []waiter, task int) []waiter {
	var out []waiter
	for _, w := range queue {
		if w.task != task {
			out = append(out, w)
		}
	}
	return out
}

// channel is nil for a nil channel.
func (s *state) channel(t *mtask, name string) *mchan {
	if at, ok := t.env.atom(name).(ref); ok {
		return s.chans[at]
	}
	return nil
}

func (c *mchan) canRecv() bool { return c != nil && (len(c.buf) > 0 || len(c.sendq) > 0 || c.closed) }

func (c *mchan) canSend() bool {
	return c != nil && (c.closed || len(c.recvq) > 0 || len(c.buf) < c.cap)
}

// ready lists the arms that can win now; none: default if there is one, else -1, which parks.
func (s *state) ready(t *mtask) []int {
	var out []int
	otherwise := -1
	for i, a := range t.proc.code[t.pc].arms {
		switch {
		case a.kind == "default":
			otherwise = i
		case a.kind == "recv" && s.channel(t, a.args[0]).canRecv():
			out = append(out, i)
		case a.kind == "send" && s.channel(t, a.args[0]).canSend():
			out = append(out, i)
		}
	}
	if out == nil {
		out = []int{otherwise}
	}
	return out
}

// took gives a value (or the end) to a task that received: at once or after it waited.
func (s *state) took(i, arm int, v value, ok bool) {
	t := s.tasks[i]
	one := &t.proc.code[t.pc]
	args, to := one.args, t.pc+1
	if arm >= 0 {
		args, to = one.arms[arm].args, one.arms[arm].to
	}
	if one.op == "tryrecv" {
		t.env[args[1]], t.env[args[2]] = v, "closed"
		if ok {
			t.env[args[2]] = "value"
		}
	} else {
		t.env.set(args, 1, v)
		t.env.set(args, 2, truth(ok))
	}
	s.wake(i, to)
}

// sent lets a sender go on, with a panic if the channel was closed.
func (s *state) sent(i, arm int, closed bool) {
	t := s.tasks[i]
	one := &t.proc.code[t.pc]
	to := t.pc + 1
	switch {
	case arm >= 0 && closed:
		to = one.to
	case arm >= 0:
		to = one.arms[arm].to
	case one.op == "trysend" && closed:
		t.env[one.args[2]] = "panic"
	case one.op == "trysend":
		t.env[one.args[2]] = "sent"
	}
	s.wake(i, to)
	if closed {
		t.owed = panicSend
	}
}

// recv receives for task i; the channel can.
func (s *state) recv(i, arm int, c *mchan) {
	var v value
	ok := true
	switch {
	case len(c.buf) > 0:
		v, c.buf = c.buf[0], append([]value(nil), c.buf[1:]...)
		if len(c.sendq) > 0 {
			from := c.sendq[0]
			c.buf = append(c.buf, from.v)
			s.sent(from.task, from.arm, false)
		}
	case len(c.sendq) > 0:
		from := c.sendq[0]
		v = from.v
		s.sent(from.task, from.arm, false)
	default:
		ok = false
	}
	s.took(i, arm, v, ok)
}

// send sends for task i; the channel can.
func (s *state) send(i, arm int, c *mchan, v value) {
	switch {
	case c.closed:
		s.sent(i, arm, true)
		return
	case len(c.recvq) > 0:
		s.took(c.recvq[0].task, c.recvq[0].arm, v, true)
	default:
		c.buf = append(c.buf, v)
	}
	s.sent(i, arm, false)
}

// do performs the step of task i, with this arm if it is a select, and returns what it shows.
func (s *state) do(i, arm int) []event {
	t := s.tasks[i]
	if t.owed != "" {
		shown := event{t.name, t.owed}
		t.owed = ""
		return []event{shown}
	}
	one := &t.proc.code[t.pc]
	args := one.args
	switch one.op {
	case "print":
		t.pc++
		return []event{{t.name, t.env.fill(args[0])}}
	case "settle":
		t.pc++
	case "sleep":
		t.parked, t.timed, t.timer = true, true, t.env.atom(args[0]).(int)
	case "len":
		t.env[args[1]] = 0
		if c := s.channel(t, args[0]); c != nil {
			t.env[args[1]] = len(c.buf)
		}
		t.pc++
	case "cap":
		t.env[args[1]] = s.channel(t, args[0]).cap
		t.pc++
	case "close":
		c := s.channel(t, args[0])
		t.pc++
		if c.closed {
			t.owed = panicClose
			return nil
		}
		c.closed = true
		for len(c.recvq) > 0 {
			s.took(c.recvq[0].task, c.recvq[0].arm, nil, false)
		}
		for len(c.sendq) > 0 {
			s.sent(c.sendq[0].task, c.sendq[0].arm, true)
		}
	case "send", "trysend":
		c, words := s.channel(t, args[0]), args[1:]
		if one.op == "trysend" { // the last word is where its outcome goes
			words = args[1:2]
		}
		v := t.env.eval(words)
		switch {
		case c.canSend():
			s.send(i, -1, c, v)
		case one.op == "trysend":
			t.env[args[2]] = "full"
			t.pc++
		default:
			t.parked = true
			if c != nil {
				c.sendq = append(c.sendq, waiter{i, -1, v})
			}
		}
	case "recv", "tryrecv":
		c := s.channel(t, args[0])
		switch {
		case c.canRecv():
			s.recv(i, -1, c)
		case one.op == "tryrecv":
			t.env[args[1]], t.env[args[2]] = nil, "none"
			t.pc++
		default:
			t.parked = true
			if c != nil {
				c.recvq = append(c.recvq, waiter{i, -1, nil})
			}
		}
	case "select":
		s.choose(i, arm)
	default:
		panic("no step for " + one.op)
	}
	return nil
}

func (s *state) choose(i, arm int) {
	t := s.tasks[i]
	one := &t.proc.code[t.pc]
	if arm >= 0 {
		a := one.arms[arm]
		switch a.kind {
		case "recv":
			s.recv(i, arm, s.channel(t, a.args[0]))
		case "send":
			s.send(i, arm, s.channel(t, a.args[0]), t.env.eval(a.args[1:]))
		default:
			s.wake(i, a.to)
		}
		return
	}
	t.parked = true
	for n, a := range one.arms {
		if a.kind == "after" {
			units := t.env.atom(a.args[0]).(int)
			if !t.timed || units < t.timer {
				t.timed, t.timer, t.arm = true, units, n
			}
			t.live = true
			continue
		}
		c := s.channel(t, a.args[0])
		if c == nil {
			continue
		}
		t.live = true
		if a.kind == "recv" {
			c.recvq = append(c.recvq, waiter{i, n, nil})
		} else {
			c.sendq = append(c.sendq, waiter{i, n, t.env.eval(a.args[1:])})
		}
	}
}

func (s *state) clone() *state {
	out := &state{tasks: make([]*mtask, len(s.tasks)), chans: make([]*mchan, len(s.chans))}
	for i, t := range s.tasks {
		copied := *t
		copied.env = make(env, len(t.env))
		for name, v := range t.env {
			copied.env[name] = v
		}
		out.tasks[i] = &copied
	}
	for i, c := range s.chans {
		out.chans[i] = &mchan{
			cap: c.cap, closed: c.closed, buf: append([]value(nil), c.buf...),
			recvq: append([]waiter(nil), c.recvq...), sendq: append([]waiter(nil), c.sendq...),
		}
	}
	return out
}

// key is the whole state as text.
func (s *state) key() string {
	var out strings.Builder
	for _, t := range s.tasks {
		fmt.Fprintf(&out, "%s %d %v %v %v %d %d %q", t.name, t.pc, t.parked, t.done, t.timed, t.timer, t.arm, t.owed)
		names := make([]string, 0, len(t.env))
		for name := range t.env {
			names = append(names, name)
		}
		sort.Strings(names)
		for _, name := range names {
			fmt.Fprintf(&out, " %s=%#v", name, t.env[name])
		}
		out.WriteByte('\n')
	}
	for _, c := range s.chans {
		fmt.Fprintf(&out, "%v %#v %v %v\n", c.closed, c.buf, c.recvq, c.sendq)
	}
	return out.String()
}
