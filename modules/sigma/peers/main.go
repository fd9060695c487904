// Command peers weighs this project's Sigma engine against two others, on the same rules and the same events in one run, and
// prints a line of JSON for each: the engine, the nanoseconds an event cost it, how many findings it had. It is a module of its
// own, so that none of them is part of omega; `make bench` builds it as bin/omega-sigma-peers, where `omega bench` looks for it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	bradley "github.com/bradleyjkemp/sigma-go"
	"github.com/bradleyjkemp/sigma-go/evaluator"
	markuskont "github.com/markuskont/go-sigma-rule-engine"

	"github.com/omega-mesh/omega/modules/sigma"
)

const (
	nRules, nEvents = 300, 512
	// rounds of all engines, one after the other, each for about span: the least of an engine's is taken, since what else the
	// machine does only adds.
	rounds = 3
	span   = time.Second
)

// rules are of the shape most public ones have; all three engines read them.
func rules() []string {
	var all []string
	for i := range nRules {
		all = append(all, fmt.Sprintf("title: Rule %d\nid: 00000000-0000-4000-8000-%012d\nlevel: medium\nlogsource:\n  product: linux\n  category: process_creation\ndetection:\n  selection:\n    Image|endswith: '/tool%d'\n    CommandLine|contains:\n      - 'evil%dword'\n      - 'other%dthing'\n  filter:\n    ParentImage|startswith: '/opt/app%d/'\n  condition: selection and not filter\n", i, i, i%60, i, i, i%40))
	}
	return all
}

// events are such that one of 64 is found by one rule.
func events() []map[string]any {
	var all []map[string]any
	for i := range nEvents {
		what := "build"
		if i%64 == 63 {
			what = fmt.Sprintf("evil%dword", i%60)
		}
		all = append(all, map[string]any{"category": "process_creation", "Image": fmt.Sprintf("/usr/bin/tool%d", i%60), "ParentImage": fmt.Sprintf("/opt/app%d/run", 40+i%40),
			"CommandLine": fmt.Sprintf("tool%d --output /tmp/%s/%d --mirror https://mirror.example/%d/package.tar.gz", i%60, what, i, i*7)})
	}
	return all
}

// engine is one of them with the rules read: detect gives how many rules find event i.
type engine struct {
	Name     string  `json:"engine"`
	Nanos    float64 `json:"ns"`
	Findings int     `json:"findings"`
	detect   func(i int) (int, error)
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "omega-sigma-peers:", err)
		os.Exit(1)
	}
}

func run() error {
	dir, err := os.MkdirTemp("", "sigma-peers-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	texts, batch := rules(), events()
	var all []*engine
	for _, build := range []func([]string, []map[string]any, string) (*engine, error){ours, sigmaGo, ruleEngine} {
		e, err := build(texts, batch, dir)
		if err != nil {
			return err
		}
		for i := range batch {
			n, err := e.detect(i)
			if err != nil {
				return fmt.Errorf("%s: %w", e.Name, err)
			}
			e.Findings += n
		}
		all = append(all, e)
	}
	for _, e := range all {
		if e.Findings != all[0].Findings || e.Findings != nEvents/64 {
			return fmt.Errorf("%s has %d findings where %s has %d, and there are %d", e.Name, e.Findings, all[0].Name, all[0].Findings, nEvents/64)
		}
	}
	for range rounds {
		for _, e := range all {
			n, began := 0, time.Now()
			for time.Since(began) < span {
				for i := range batch {
					if _, err := e.detect(i); err != nil {
						return fmt.Errorf("%s: %w", e.Name, err)
					}
				}
				n += len(batch)
			}
			if ns := float64(time.Since(began)) / float64(n); e.Nanos == 0 || ns < e.Nanos {
				e.Nanos = ns
			}
		}
	}
	out := json.NewEncoder(os.Stdout)
	for _, e := range all {
		if err := out.Encode(e); err != nil {
			return err
		}
	}
	return nil
}

func ours(texts []string, batch []map[string]any, _ string) (*engine, error) {
	var text []byte
	for _, t := range texts {
		text = append(append(text, "---\n"...), t...)
	}
	set := sigma.Parse("bench", text, sigma.Options{AnySource: true})
	if len(set.Rules) != len(texts) {
		return nil, fmt.Errorf("omega: %v", set.Rejected)
	}
	var records []*sigma.Record
	for _, e := range batch {
		raw, err := json.Marshal(e)
		if err != nil {
			return nil, err
		}
		r, err := sigma.ReadRecord(raw)
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	d := sigma.NewDetector(set)
	return &engine{Name: "omega", detect: func(i int) (int, error) {
		n := 0
		d.Record(records[i], 0, func(*sigma.Rule) { n++ })
		return n, nil
	}}, nil
}

func sigmaGo(texts []string, batch []map[string]any, _ string) (*engine, error) {
	var all []*evaluator.RuleEvaluator
	for _, t := range texts {
		r, err := bradley.ParseRule([]byte(t))
		if err != nil {
			return nil, fmt.Errorf("sigma-go: %w", err)
		}
		all = append(all, evaluator.ForRule(r))
	}
	return &engine{Name: "sigma-go v0.6.6", detect: func(i int) (int, error) {
		n := 0
		for _, r := range all {
			result, err := r.Matches(context.Background(), batch[i])
			if err != nil {
				return 0, err
			}
			if result.Match {
				n++
			}
		}
		return n, nil
	}}, nil
}

func ruleEngine(texts []string, batch []map[string]any, dir string) (*engine, error) {
	for i, t := range texts {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.yml", i)), []byte(t), 0o600); err != nil {
			return nil, err
		}
	}
	set, err := markuskont.NewRuleset(markuskont.Config{Directory: []string{dir}})
	if err != nil {
		return nil, fmt.Errorf("go-sigma-rule-engine: %w", err)
	}
	if set.Ok != len(texts) {
		return nil, errors.New("go-sigma-rule-engine does not read every rule")
	}
	var all []markuskont.Event
	for _, e := range batch {
		all = append(all, fields(e))
	}
	return &engine{Name: "go-sigma-rule-engine v0.3.0", detect: func(i int) (int, error) {
		found, _ := set.EvalAll(all[i])
		return len(found), nil
	}}, nil
}

// fields is an event as the third engine takes it.
type fields map[string]any

// Keywords implements its Event.
func (fields) Keywords() ([]string, bool) { return nil, false }

// Select implements its Event.
func (f fields) Select(name string) (any, bool) {
	v, ok := f[name]
	return v, ok
}
