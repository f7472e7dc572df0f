// Playing a script on Go's own channels: a goroutine per task, nothing of Go's replaced.
package main

import (
	"bytes"
	"fmt"
	"math/rand"
	"reflect"
	"runtime"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

const (
	tick        = 40 * time.Millisecond // one unit of sleep and after: far more than any script computes
	pollPause   = 50 * time.Microsecond
	patience    = 20 * time.Second
	maxTaskOps  = 100_000
	maxYields   = 3
	quietRounds = 2 // looks in a row that must find everybody blocked before a script is over
)

type event struct{ task, text string }

func sortedByTask(events []event) []event {
	out := append([]event(nil), events...)
	sort.SliceStable(out, func(i, j int) bool { return out[i].task < out[j].task })
	return out
}

func sorted(lines []string) []string {
	out := append([]string(nil), lines...)
	sort.Strings(out)
	return out
}

type goTask struct {
	name string
	proc *proc
	env  env
	pc   int  // of the instruction that runs; read by others only while this task is blocked
	live bool // the select it is in has an arm that can win
	done chan struct{}
	rng  *rand.Rand
}

// world is one run of one script.
type world struct {
	script *script
	mutex  sync.Mutex // protects what follows; never held over a channel operation
	events []event
	tasks  map[string]*goTask
	chans  []chan any
	open   int32 // tasks that are not done
	timed  int32 // of them, those that wait for a timer (too)
	over   int32 // the trace is taken: tasks that wake from now on leave
	stuck  int   // goroutines that former runs left blocked for ever
}

// leftBlocked counts goroutines of former runs that nothing can wake (nil channels).
var leftBlocked int

// play runs the script once and returns its trace.
func play(s *script, seed int64) (string, error) {
	w := &world{script: s, tasks: map[string]*goTask{}, stuck: leftBlocked}
	w.spawn("main", s.tasks["main"], env{}, rand.New(rand.NewSource(seed)))
	begin, quiet := time.Now(), 0
	for quiet < quietRounds && atomic.LoadInt32(&w.open) > 0 {
		if time.Since(begin) > patience {
			return "", fmt.Errorf("%s: still running after %v", s.name, patience)
		}
		time.Sleep(pollPause)
		if atomic.LoadInt32(&w.timed) == 0 && w.blocked() == int(atomic.LoadInt32(&w.open)) {
			quiet++
		} else {
			quiet = 0
		}
	}
	w.mutex.Lock()
	var blocked []string
	for _, task := range w.tasks {
		if !task.isDone() {
			blocked = append(blocked, blockedLine(task.name, &task.proc.code[task.pc], task.live))
		}
	}
	trace := arrange(w.events, blocked, s.byTask)
	atomic.StoreInt32(&w.over, 1)
	chans := w.chans
	w.mutex.Unlock()
	for _, one := range chans { // wakes whom a channel can wake
		func() {
			defer func() { _ = recover() }()
			close(one)
		}()
	}
	if len(blocked) > 0 {
		time.Sleep(time.Millisecond)
	}
	leftBlocked = w.stuck + w.blocked()
	return trace, nil
}

func (t *goTask) isDone() bool {
	select {
	case <-t.done:
		return true
	default:
		return false
	}
}

func (w *world) spawn(name string, p *proc, e env, rng *rand.Rand) {
	task := &goTask{name: name, proc: p, env: e, done: make(chan struct{}), rng: rng}
	w.mutex.Lock()
	if w.tasks[name] != nil {
		panic("a second task " + name)
	}
	w.tasks[name] = task
	w.mutex.Unlock()
	atomic.AddInt32(&w.open, 1)
	go w.exec(task)
}

var stackBuffer = make([]byte, 1<<20)
var stackMutex sync.Mutex

// blocked counts the tasks of this run that the runtime has parked in a channel operation, a select or a sleep.
func (w *world) blocked() int {
	stackMutex.Lock()
	defer stackMutex.Unlock()
	size := runtime.Stack(stackBuffer, true)
	for size == len(stackBuffer) {
		stackBuffer = make([]byte, 2*size)
		size = runtime.Stack(stackBuffer, true)
	}
	found := 0
	for _, one := range bytes.Split(stackBuffer[:size], []byte("\n\n")) {
		from, to := bytes.IndexByte(one, '['), bytes.IndexByte(one, ']')
		if from < 0 || to < from || !bytes.Contains(one, []byte("(*world).exec(")) {
			continue
		}
		for _, state := range []string{"chan receive", "chan send", "select", "sleep"} {
			if bytes.HasPrefix(one[from+1:to], []byte(state)) {
				found++
				break
			}
		}
	}
	return found - w.stuck
}

func (w *world) emit(task *goTask, text string) {
	w.mutex.Lock()
	w.events = append(w.events, event{task.name, text})
	w.mutex.Unlock()
}

// caught runs one operation and turns a panic of Go's channels into an event.
func (w *world) caught(task *goTask, operation func()) {
	defer func() {
		if reason := recover(); reason != nil {
			if failure, ok := reason.(runtime.Error); ok && atomic.LoadInt32(&w.over) == 0 {
				text := failure.Error()
				if text != "send on closed channel" && text != "close of closed channel" {
					panic(reason)
				}
				w.emit(task, "panic: "+text)
			} else if !ok {
				panic(reason)
			}
		}
	}()
	operation()
}

// exec is the goroutine of one task.
func (w *world) exec(task *goTask) {
	defer atomic.AddInt32(&w.open, -1)
	defer close(task.done)
	e := task.env
	for steps := 0; atomic.LoadInt32(&w.over) == 0; steps++ {
		if steps == maxTaskOps {
			panic(w.script.name + ": " + task.name + " does not end")
		}
		one := &task.proc.code[task.pc]
		args := one.args
		next := task.pc + 1
		for i := task.rng.Intn(maxYields + 1); i > 0; i-- {
			runtime.Gosched()
		}
		switch one.op {
		case "return":
			return
		case "jump":
			next = one.to
		case "unless":
			if e[args[0]] == 0 {
				next = one.to
			}
		case "let":
			e[args[0]] = e.eval(args[1:])
		case "make":
			made := make(chan any, e.atom(args[1]).(int))
			w.mutex.Lock()
			w.chans = append(w.chans, made)
			w.mutex.Unlock()
			e[args[0]] = made
		case "spawn":
			p := w.script.tasks[args[1]]
			fresh := env{}
			for i, param := range p.params {
				fresh[param] = e.atom(args[2+i])
			}
			w.spawn(e.fill(args[0]), p, fresh, rand.New(rand.NewSource(task.rng.Int63())))
		case "join":
			for _, name := range args {
				w.mutex.Lock()
				other := w.tasks[e.fill(name)]
				w.mutex.Unlock()
				<-other.done
			}
		case "print":
			w.emit(task, e.fill(args[0]))
		case "settle":
			for atomic.LoadInt32(&w.over) == 0 && w.blocked() != int(atomic.LoadInt32(&w.open))-1 {
				runtime.Gosched()
			}
		case "sleep":
			atomic.AddInt32(&w.timed, 1)
			time.Sleep(time.Duration(e.atom(args[0]).(int)) * tick)
			atomic.AddInt32(&w.timed, -1)
		case "len":
			e[args[1]] = len(channel(e, args[0]))
		case "cap":
			e[args[1]] = cap(channel(e, args[0]))
		case "close":
			w.caught(task, func() { close(channel(e, args[0])) })
		case "send":
			v := e.eval(args[1:])
			w.caught(task, func() { channel(e, args[0]) <- v })
		case "recv":
			v, ok := <-channel(e, args[0])
			e.set(args, 1, v)
			e.set(args, 2, truth(ok))
		case "trysend":
			e[args[2]] = "panic"
			w.caught(task, func() {
				select {
				case channel(e, args[0]) <- e.atom(args[1]):
					e[args[2]] = "sent"
				default:
					e[args[2]] = "full"
				}
			})
		case "tryrecv":
			select {
			case v, ok := <-channel(e, args[0]):
				e[args[1]], e[args[2]] = v, "closed"
				if ok {
					e[args[2]] = "value"
				}
			default:
				e[args[1]], e[args[2]] = nil, "none"
			}
		case "select":
			next = one.to // behind the select: for a send arm that panics
			w.caught(task, func() { next = w.choose(task, one) })
		}
		task.pc = next
	}
}

func channel(e env, name string) chan any {
	found, _ := e.atom(name).(chan any)
	return found // nil is a nil channel
}

// choose is Go's select with arms made at run time.
func (w *world) choose(task *goTask, one *ins) int {
	e := task.env
	cases := make([]reflect.SelectCase, len(one.arms))
	timed := int32(0)
	task.live = false
	for i, a := range one.arms {
		var live bool
		switch a.kind {
		case "recv":
			c := channel(e, a.args[0])
			cases[i], live = reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(c)}, c != nil
		case "send":
			c := channel(e, a.args[0])
			v := reflect.New(reflect.TypeOf((*any)(nil)).Elem()).Elem()
			if sent := e.eval(a.args[1:]); sent != nil {
				v.Set(reflect.ValueOf(sent))
			}
			cases[i], live = reflect.SelectCase{Dir: reflect.SelectSend, Chan: reflect.ValueOf(c), Send: v}, c != nil
		case "after":
			timer := time.After(time.Duration(e.atom(a.args[0]).(int)) * tick)
			cases[i], live = reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(timer)}, true
			timed = 1
		case "default":
			cases[i], live = reflect.SelectCase{Dir: reflect.SelectDefault}, true
		}
		task.live = task.live || live
	}
	atomic.AddInt32(&w.timed, timed)
	defer atomic.AddInt32(&w.timed, -timed)
	won, v, ok := reflect.Select(cases)
	if a := one.arms[won]; a.kind == "recv" {
		if ok {
			e.set(a.args, 1, v.Interface())
		} else {
			e.set(a.args, 1, nil)
		}
		e.set(a.args, 2, truth(ok))
	}
	return one.arms[won].to
}
