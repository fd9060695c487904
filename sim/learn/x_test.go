package learn

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/omega-mesh/omega/sim/cage2"
)

func TestX(t *testing.T) {
	secs, _ := strconv.Atoi(os.Getenv("SECS"))
	if secs == 0 {
		t.Skip()
	}
	h := DefaultHyper()
	f := func(name string, p *float64) {
		if s := os.Getenv(name); s != "" {
			*p, _ = strconv.ParseFloat(s, 64)
		}
	}
	f("RATE", &h.Rate)
	f("ENT", &h.Entropy)
	f("GAMMA", &h.Discount)
	f("LAMBDA", &h.Lambda)
	hid := 64.0
	f("HID", &hid)
	ep := 3.0
	f("EPOCHS", &ep)
	h.Epochs = int(ep)
	l, err := NewLearner(h, DefenderSizes(), int(hid), 64, 1, func() Game {
		return &Defence{Versions: []cage2.Version{cage2.Leaderboard, cage2.Later}, Opponents: []Opponent{{Red: cage2.BLine, Weight: 1}, {Red: cage2.Meander, Weight: 1}, {Red: cage2.SleepRed, Weight: 0.05}}}
	})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(len(l.Policy.flat), len(l.Critic.flat), DefenderSizes())
	begin := time.Now()
	for i := 0; ; i++ {
		el := time.Since(begin).Seconds()
		r, err := l.Iterate(context.Background(), min(1, el/float64(secs)))
		if err != nil {
			t.Fatal(err)
		}
		if i%25 == 0 || el > float64(secs) {
			var tot [2]float64
			for v := range 2 {
				s, err := cage2.Evaluate(context.Background(), cage2.Evaluation{New: func() (cage2.Policy, error) { return NewPolicy(l.Policy, cage2.Version(v)), nil }, Version: cage2.Version(v), Episodes: 400, Seed: 9, Workers: 1})
				if err != nil {
					t.Fatal(err)
				}
				tot[v] = s.Total
			}
			fmt.Printf("%.0fs steps %.2fM rew %.4f ent %.3f kl %.4f val %.3f expl %.3f feats %.0f | LB %.1f later %.1f\n", el, float64(l.Steps)/1e6, r.Reward, r.Entropy, r.KL, r.Value, r.Explains, float64(len(l.shards[0].inputs))/float64(h.Worlds*h.Horizon/4), tot[0], tot[1])
		}
		if el > float64(secs) {
			break
		}
	}
}
