// The oracle: plays scripts on Go's own channels and writes the traces that ../traces holds.
//
//	go run . -scripts ../scripts -traces ../traces          write the traces again
//	go run . -scripts ../scripts -traces ../traces -check   exit 1 if a file differs from what would be written
//
// For each script: (1) model.go walks every schedule, which gives the set of possible traces; (2) run.go plays the script
// many times, with 1, 2 and 4 processors and yields at random; (3) each trace that Go shows must be in the set. A set of
// one is thereby proved to be the only outcome. What is written depends on the scripts and on Go, not on chance.
// The digest in the head of a trace file is that of the script file and of this program, so that what was not made again
// after a change is found without Go as well.
package main

import (
	"crypto/sha256"
	"embed"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
)

const head = "# Made by tests/interop/oracle/go from the scripts of the same name (make oracle-traces); do not edit.\n"

//go:embed *.go go.mod
var sources embed.FS

// digest is the SHA-256 of the script file, then of each file of this program by name.
func digest(scriptFile string) (string, error) {
	hash := sha256.New()
	text, err := os.ReadFile(scriptFile)
	if err != nil {
		return "", err
	}
	hash.Write(text)
	own, err := sources.ReadDir(".") // sorted by name
	if err != nil {
		return "", err
	}
	for _, one := range own {
		text, err := sources.ReadFile(one.Name())
		if err != nil {
			return "", err
		}
		hash.Write(text)
	}
	return fmt.Sprintf("%x", hash.Sum(nil)), nil
}

func main() {
	scripts := flag.String("scripts", "../scripts", "folder of the scripts")
	traces := flag.String("traces", "../traces", "folder of the traces")
	check := flag.Bool("check", false, "compare instead of writing")
	runs := flag.Int("runs", 300, "how often each script is played")
	flag.Parse()
	if err := remake(*scripts, *traces, *check, *runs); err != nil {
		fmt.Fprintln(os.Stderr, "oracle:", err)
		os.Exit(1)
	}
}

func remake(scripts, traces string, check bool, runs int) error {
	files, err := filepath.Glob(filepath.Join(scripts, "*.txt"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("no scripts in %s", scripts)
	}
	sort.Strings(files)
	for _, file := range files {
		all, err := readScripts(file)
		if err != nil {
			return err
		}
		sum, err := digest(file)
		if err != nil {
			return err
		}
		var out strings.Builder
		fmt.Fprintf(&out, "%s# sources: %s\n", head, sum)
		for _, one := range all {
			text, err := outcome(one, runs)
			if err != nil {
				return err
			}
			out.WriteString(text)
		}
		target := filepath.Join(traces, filepath.Base(file))
		if !check {
			if err := os.WriteFile(target, []byte(out.String()), 0o644); err != nil {
				return err
			}
			continue
		}
		found, err := os.ReadFile(target)
		if err != nil {
			return err
		}
		if string(found) != out.String() {
			return fmt.Errorf("%s is not what Go makes of %s", target, file)
		}
	}
	return nil
}

// outcome is the text of one script in the trace file.
func outcome(s *script, runs int) (string, error) {
	possible, states, err := enumerate(s, false)
	if err != nil {
		return "", err
	}
	allowed := map[string]bool{}
	for _, trace := range possible {
		allowed[trace] = true
	}
	seen := map[string]int{}
	left, few := leftBlocked, 2+runs/50
	for i := 0; i < runs; i++ {
		if i >= few && (s.timed() || leftBlocked > left) { // costs time, or goroutines that nothing can end
			break
		}
		runtime.GOMAXPROCS([]int{1, 2, 4}[i%3])
		trace, err := play(s, int64(i))
		if err != nil {
			return "", err
		}
		if !allowed[trace] {
			return "", fmt.Errorf("%s: Go shows a trace that the model has not:\n%s\n-- the model:\n%s",
				s.name, trace, strings.Join(possible, "\n--\n"))
		}
		seen[trace]++
	}
	fmt.Fprintf(os.Stderr, "%-34s %d of %d possible traces seen, %d states\n", s.name, len(seen), len(possible), states)
	var out strings.Builder
	fmt.Fprintf(&out, "\n== %s\n", s.name)
	write := func(word string, all []string) {
		for i, trace := range all {
			fmt.Fprintf(&out, "-- %s %d of %d\n", word, i+1, len(all))
			if trace != "" {
				out.WriteString(trace + "\n")
			}
		}
	}
	write("trace", possible)
	if s.handoff {
		wide, _, err := enumerate(s, true)
		if err != nil {
			return "", err
		}
		var more []string
		for _, trace := range wide {
			if !allowed[trace] {
				more = append(more, trace)
			}
		}
		write("without settle", more)
	}
	return out.String(), nil
}

// timed is true of a script that waits for the clock; it is played less often.
func (s *script) timed() bool {
	for _, task := range s.tasks {
		for _, one := range task.code {
			if one.op == "sleep" {
				return true
			}
			for _, a := range one.arms {
				if a.kind == "after" {
					return true
				}
			}
		}
	}
	return false
}
