package serve

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"

	"github.com/omega-mesh/omega/sim/cage2"
	simv1 "github.com/omega-mesh/omega/sim/serve/v1"
	"github.com/omega-mesh/omega/sim/serve/v1/simv1connect"
	"github.com/omega-mesh/omega/sim/world"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start serves on loopback until the test ends, and gives the address.
func start(t testing.TB, s *Server) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func create(t testing.TB, s *Server, r *simv1.CreateRequest) *simv1.CreateResponse {
	t.Helper()
	made, err := s.Create(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func pack(actions ...int32) (b []byte) {
	for _, a := range actions {
		b = binary.LittleEndian.AppendUint32(b, uint32(a))
	}
	return b
}

func unpack(b []byte) (r []float64) {
	for ; len(b) > 0; b = b[8:] {
		r = append(r, math.Float64frombits(binary.LittleEndian.Uint64(b)))
	}
	return r
}

// Three agents at once see and get what the engine gives when it is stepped by hand.
func TestAgentsAreThoseOfTheEngine(t *testing.T) {
	s := New(0)
	made := create(t, s, &simv1.CreateRequest{Environment: "cage2", Worlds: 5, Seed: 4, Agents: []string{"green", "blue", "red"}, Masks: true, Steps: 40})
	if len(made.Agents) != 3 || made.Agents[1].Action.N != 145 || len(made.Agents[2].Actions) != 44 || made.Agents[2].Actions[17] != "ExploitRemoteService Defender" {
		t.Fatalf("%v", made)
	}
	if _, err := s.Reset(context.Background(), &simv1.ResetRequest{Session: made.Session}); err != nil {
		t.Fatal(err)
	}
	var by [5]cage2.World
	for i := range by {
		by[i] = cage2.NewWorld(cage2.Leaderboard, cage2.BLine, false, Stream(4, i, 0))
	}
	draw := Stream(1, 1, 1)
	down := 0
	for step := range 40 {
		var green, blue, red []int32
		for i := range by {
			green, blue = append(green, int32(draw.Below(14))), append(blue, int32(draw.Below(20)))
			red = append(red, int32(draw.Bit(uint32(by[i].RedMask()))))
		}
		r, err := s.Step(context.Background(), &simv1.StepRequest{Session: made.Session, Actions: pack(append(append(green, blue...), red...)...)})
		if err != nil {
			t.Fatal(err)
		}
		rewards := unpack(r.Rewards)
		for i := range by {
			x := by[i].Contest(cage2.Action(blue[i]), uint8(red[i]), uint8(green[i]))
			var o [8]byte
			binary.LittleEndian.PutUint64(o[:], uint64(x.Observation))
			var seen [27]byte
			by[i].RedObservation(seen[:])
			if !bytes.Equal(r.Observations[5+7*i:][:7], o[:7]) || !bytes.Equal(r.Observations[5+35+27*i:][:27], seen[:]) {
				t.Fatalf("step %d, world %d: other observations", step, i)
			}
			if rewards[i] != 0 || rewards[5+i] != float64(x.Reward)/10 || rewards[10+i] != -float64(x.Reward)/10 { // no Restore among blue's
				t.Fatalf("step %d, world %d: rewards %v, want %d tenths", step, i, rewards, x.Reward)
			}
			if m := binary.LittleEndian.Uint64(append(bytes.Clone(r.Masks[5*2+5*19+6*i:][:6]), 0, 0)); m != by[i].RedMask() {
				t.Fatalf("step %d, world %d: red's mask %x, want %x", step, i, m, by[i].RedMask())
			}
			if by[i].Privilege(cage2.User1) > 0 {
				down++
			}
		}
		if want := bytes.Repeat([]byte{byte(step / 39)}, 5); !bytes.Equal(r.Truncated, want) {
			t.Fatalf("step %d: truncated %v", step, r.Truncated)
		}
	}
	if down == 0 {
		t.Error("red never took anything: the test is too tame")
	}
}

func officeScenario(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "world", "testdata", "office.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A defender who waits gets the loss of the run that `omega sim run` makes of the same stream; one who refuses does not.
func TestNetworkIsTheWorldOfGo(t *testing.T) {
	s := New(0)
	made := create(t, s, &simv1.CreateRequest{Environment: "network", Worlds: 20, Seed: 8, Network: &simv1.Network{Scenario: officeScenario(t), StepSeconds: 1800}})
	if made.Steps != 48 {
		t.Fatalf("%d steps of half an hour in a day", made.Steps)
	}
	scenario, err := world.Read(bytes.NewReader(officeScenario(t)))
	if err != nil {
		t.Fatal(err)
	}
	lost := make([]float64, 20)
	found := float32(0)
	for step := range 48 {
		r, err := s.Step(context.Background(), &simv1.StepRequest{Session: made.Session, Actions: make([]byte, 80)})
		if err != nil {
			t.Fatal(err)
		}
		for i, x := range unpack(r.Rewards) {
			lost[i] -= x
			if r.Truncated[i] != byte(step/47) {
				t.Fatalf("step %d: truncated %v", step, r.Truncated)
			}
		}
		n := int(made.Agents[0].Observation.N)
		for j := made.Agents[0].Action.N - 1; int(j) < n; j++ {
			found += math.Float32frombits(binary.LittleEndian.Uint32(r.Observations[4*j:]))
		}
	}
	total := 0.0
	for i := range lost {
		w, err := world.New(scenario, Stream(8, i, 0))
		if err != nil {
			t.Fatal(err)
		}
		r := w.Run(time.Duration(scenario.Duration))
		want := r.Loss + harm*float64(r.HarmedLogons)
		if math.Abs(lost[i]-want) > 1e-6*(1+want) { // summed in another order
			t.Errorf("world %d: lost %v, want %v", i, lost[i], want)
		}
		total += want
	}
	if total == 0 || found == 0 {
		t.Errorf("lost %v, found %v: nothing happened", total, found)
	}
}

// An attacker and a defender play at once: an attacker that takes any open step gets somewhere, what one loses the other
// wins, and one that waits gets nothing.
func TestAttackerAndDefenderInANetwork(t *testing.T) {
	lost := map[bool]float64{}
	for _, idle := range []bool{false, true} {
		s := New(0)
		const worlds = 30
		made := create(t, s, &simv1.CreateRequest{Environment: "network", Worlds: worlds, Seed: 2, Masks: true, Agents: []string{"attacker", "defender"},
			Network: &simv1.Network{Scenario: officeScenario(t), StepSeconds: 300}})
		r, err := s.Reset(context.Background(), &simv1.ResetRequest{Session: made.Session})
		if err != nil {
			t.Fatal(err)
		}
		draw := Stream(1, 2, 3)
		orders := int(made.Agents[0].Action.N)
		width := (orders + 7) / 8
		for range 200 {
			actions := make([]int32, 2*worlds)
			for i := range worlds {
				mask := r.Masks[width*i:][:width]
				if mask[0]&1 == 0 {
					t.Fatal("waiting is masked")
				}
				open := []int32{0}
				for n := 1; n < orders; n++ {
					if mask[n/8]>>(n%8)&1 == 1 {
						open = append(open, int32(n))
					}
				}
				if !idle && len(open) > 1 {
					actions[i] = open[1+draw.Below(uint32(len(open)-1))]
				}
			}
			if r, err = s.Step(context.Background(), &simv1.StepRequest{Session: made.Session, Actions: pack(actions...)}); err != nil {
				t.Fatal(err)
			}
			rewards := unpack(r.Rewards)
			for i := range worlds {
				if rewards[i] < 0 || rewards[worlds+i] > -rewards[i] {
					t.Fatalf("the attacker gets %v, the defender %v", rewards[i], rewards[worlds+i])
				}
				lost[idle] += rewards[i]
			}
		}
	}
	if lost[false] <= 0 || lost[true] != 0 {
		t.Errorf("an attacker that plays gets %v, one that waits %v", lost[false], lost[true])
	}
}

// What is refused is refused with words, and disturbs no other session.
func TestRefusals(t *testing.T) {
	s := New(0)
	ctx := context.Background()
	good := create(t, s, &simv1.CreateRequest{Environment: "cage2", Worlds: 2, Autoreset: "disabled", Steps: 3})
	for want, r := range map[string]*simv1.CreateRequest{
		"0 worlds: from 1 to 65536":          {Environment: "cage2"},
		"1000000000 worlds":                  {Environment: "cage2", Worlds: 1e9},
		`environment "go": want cage2`:       {Environment: "go", Worlds: 1},
		`agent "purple": cage2 has blue`:     {Environment: "cage2", Worlds: 1, Agents: []string{"purple"}},
		"at most 250":                        {Environment: "cage2", Worlds: 1, Steps: 251},
		`version "9"`:                        {Environment: "cage2", Worlds: 1, Cage2: &simv1.Cage2{Version: "9"}},
		`red agent "eve"`:                    {Environment: "cage2", Worlds: 1, Cage2: &simv1.Cage2{Red: "eve"}},
		`blue policy "planner": want sleep`:  {Environment: "cage2", Worlds: 1, Cage2: &simv1.Cage2{Blue: "planner"}},
		`autoreset "maybe"`:                  {Environment: "cage2", Worlds: 1, Autoreset: "maybe"},
		`agent "blue": a network has`:        {Environment: "network", Worlds: 1, Agents: []string{"blue"}, Network: &simv1.Network{Scenario: officeScenario(t)}},
		`agent "attacker": a network has`:    {Environment: "network", Worlds: 1, Agents: []string{"attacker"}, Network: &simv1.Network{Scenario: wide(3)}},
		"scenario: empty":                    {Environment: "network", Worlds: 1},
		"step_seconds NaN":                   {Environment: "network", Worlds: 1, Network: &simv1.Network{Scenario: officeScenario(t), StepSeconds: math.NaN()}},
		"step_seconds -1":                    {Environment: "network", Worlds: 1, Network: &simv1.Network{Scenario: officeScenario(t), StepSeconds: -1}},
		"take fewer worlds or a shorter":     {Environment: "network", Worlds: MaxWorlds, Network: &simv1.Network{Scenario: officeScenario(t), StepSeconds: 3e7}},
		`unknown key "nmae"; did you mean`:   {Environment: "network", Worlds: 1, Network: &simv1.Network{Scenario: []byte("nmae: x")}},
		"an answer of":                       {Environment: "network", Worlds: 10_000, Network: &simv1.Network{Scenario: wide(600), StepSeconds: 1}},
		"worlds of this network take some 2": {Environment: "network", Worlds: 30_000, Network: &simv1.Network{Scenario: wide(1500), StepSeconds: 1}},
	} {
		_, err := s.Create(ctx, r)
		if err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 400 {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	for want, actions := range map[string][]byte{
		"actions of 0 bytes; 1 agents in 2 worlds take 8": nil,
		"actions of 9 bytes":                              make([]byte, 9),
		"world 1: action -1 of blue; from 0 to 144":       pack(0, -1),
		"world 0: action 145 of blue":                     pack(145, 0),
		"world 0: action 2143289344":                      pack(int32(math.Float32bits(float32(math.NaN()))), 0),
	} {
		if _, err := s.Step(ctx, &simv1.StepRequest{Session: good.Session, Actions: actions}); connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	for _, id := range []string{"", "x", strings.Repeat("a", 1<<20)} {
		if _, err := s.Step(ctx, &simv1.StepRequest{Session: id, Actions: pack(0, 0)}); connect.CodeOf(err) != connect.CodeNotFound || len(err.Error()) > 200 {
			t.Errorf("an unknown session: %.300v", err)
		}
	}
	seed := uint64(1)
	for want, r := range map[string]*simv1.ResetRequest{
		"3 bytes say which": {Session: good.Session, Worlds: make([]byte, 3)},
		"a new seed resets": {Session: good.Session, Worlds: make([]byte, 2), Seed: &seed},
	} {
		if _, err := s.Reset(ctx, r); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	for range 3 { // nothing of the above was played
		if _, err := s.Step(ctx, &simv1.StepRequest{Session: good.Session, Actions: pack(0, 0)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Step(ctx, &simv1.StepRequest{Session: good.Session, Actions: pack(0, 0)}); connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "world 0: reset it") {
		t.Errorf("a step past the end: %v", err)
	}
	for i := 1; i < MaxSessions; i++ {
		create(t, s, &simv1.CreateRequest{Environment: "cage2", Worlds: 1})
	}
	if _, err := s.Create(ctx, &simv1.CreateRequest{Environment: "cage2", Worlds: 1}); connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("a session too many: %v", err)
	}
	if _, err := s.Close(ctx, &simv1.CloseRequest{Session: good.Session}); err != nil {
		t.Error(err)
	}
	create(t, s, &simv1.CreateRequest{Environment: "cage2", Worlds: 1})
}

// wide is a network of n hosts in which little happens.
func wide(n int) []byte {
	var b bytes.Buffer
	b.WriteString("name: wide\nduration: 1h\nhosts:\n")
	for i := range n {
		fmt.Fprintf(&b, "  - {name: h%d, zone: z}\n", i)
	}
	return b.Bytes()
}

// A session that nobody uses is ended and its room is free again; one in use is not.
func TestIdleSessionsEnd(t *testing.T) {
	s := New(time.Minute)
	now := time.Unix(0, 0)
	s.now = func() time.Time { return now }
	left := create(t, s, &simv1.CreateRequest{Environment: "cage2", Worlds: 100})
	used := create(t, s, &simv1.CreateRequest{Environment: "cage2", Worlds: 1})
	step := func(id string) error {
		_, err := s.Step(context.Background(), &simv1.StepRequest{Session: id, Actions: pack(0)})
		return err
	}
	for range 3 {
		now = now.Add(40 * time.Second)
		if err := step(used.Session); err != nil {
			t.Fatal(err)
		}
		s.sweep()
	}
	if err := step(left.Session); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("an idle session lives on: %v", err)
	}
	if len(s.sessions) != 1 || s.bytes != cageWorldBytes {
		t.Errorf("%d sessions, %d bytes", len(s.sessions), s.bytes)
	}
}

// Over the wire: Connect's protobuf, gRPC, and JSON by plain POST; and clients that vanish in the middle.
func TestOverTheWire(t *testing.T) {
	address := start(t, New(0))
	h := &http.Transport{}
	h2 := &http.Transport{Protocols: new(http.Protocols)}
	h2.Protocols.SetUnencryptedHTTP2(true)
	defer h.CloseIdleConnections()
	defer h2.CloseIdleConnections()
	clients := map[string]simv1connect.EnvironmentsClient{
		"connect": simv1connect.NewEnvironmentsClient(&http.Client{Transport: h}, "http://"+address),
		"json":    simv1connect.NewEnvironmentsClient(&http.Client{Transport: h}, "http://"+address, connect.WithProtoJSON()),
		"grpc":    simv1connect.NewEnvironmentsClient(&http.Client{Transport: h2}, "http://"+address, connect.WithGRPC()),
	}
	var all sync.WaitGroup
	answers := make(chan string, len(clients))
	for name, c := range clients {
		all.Go(func() {
			ctx := context.Background()
			made, err := c.Create(ctx, &simv1.CreateRequest{Environment: "cage2", Worlds: 3, Seed: 1, Masks: true})
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			var got strings.Builder
			for a := range int32(50) {
				// A client that goes away in the middle of a request, and one that says it sends more than it does.
				for _, text := range []string{"POST /omega.sim.v1.Environments/Step HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{\"session\":\"" + made.Session, "PO"} {
					if a%10 == 0 {
						conn, err := net.Dial("tcp", address)
						if err != nil {
							t.Errorf("%s: %v", name, err)
							return
						}
						_, _ = io.WriteString(conn, text)
						conn.Close()
					}
				}
				r, err := c.Step(ctx, &simv1.StepRequest{Session: made.Session, Actions: pack(a, a+1, a+2)})
				if err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
				fmt.Fprintf(&got, "%x %x %x\n", r.Observations, r.Rewards, r.Masks)
			}
			answers <- got.String()
			if _, err := c.Close(ctx, &simv1.CloseRequest{Session: made.Session}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if _, err := c.Close(ctx, &simv1.CloseRequest{Session: made.Session}); connect.CodeOf(err) != connect.CodeNotFound {
				t.Errorf("%s: closed twice: %v", name, err)
			}
		})
	}
	all.Wait()
	close(answers)
	first, n := "", 0
	for got := range answers {
		if n++; first == "" {
			first = got
		}
		if got != first {
			t.Error("two protocols give different answers")
		}
	}
	if n != len(clients) {
		t.Errorf("%d of %d clients were answered", n, len(clients))
	}
}

// A page of the web whose name was made to mean this machine cannot reach in.
func TestForeignNamesAreRefused(t *testing.T) {
	for host, want := range map[string]int{"localhost:80": 200, "127.0.0.1:8737": 200, "[::1]:1": 200, "localhost": 200, "evil.example:8737": 403, "": 403, "10.0.0.1": 403} {
		r := httptest.NewRequest("POST", "/omega.sim.v1.Environments/Create", strings.NewReader(`{"environment":"cage2","worlds":1}`))
		r.Header.Set("Content-Type", "application/json")
		r.Host = host
		w := httptest.NewRecorder()
		New(0).Handler(true).ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("host %q: %d, want %d", host, w.Code, want)
		}
	}
}

// Whatever stands in a request, the server answers it, and another's session goes on as if nothing had been.
func FuzzRequest(f *testing.F) {
	f.Add("Create", "application/json", []byte(`{"environment":"cage2","worlds":3,"agents":["red","blue"],"masks":true,"cage2":{"red":"meander"}}`))
	f.Add("Create", "application/json", []byte(`{"environment":"network","worlds":2,"network":{"scenario":"`+base64.StdEncoding.EncodeToString([]byte("name: x\nduration: 1h\nhosts: [{name: a, zone: z}]\n"))+`","stepSeconds":60}}`))
	f.Add("Step", "application/json", []byte(`{"session":"SESSION","actions":"AAAAAAEAAAA="}`))
	f.Add("Step", "application/proto", append([]byte("\n\x20SESSION\x12\x08"), pack(3, -1)...))
	f.Add("Reset", "application/json", []byte(`{"session":"SESSION","seed":"18446744073709551615","worlds":"AAE="}`))
	f.Add("Close", "application/json", []byte(`{"session":7}`))
	f.Fuzz(func(t *testing.T, method, kind string, body []byte) {
		if strings.ContainsFunc(method, func(r rune) bool { return r < 'A' || r > 'z' }) || len(body) > 1<<16 {
			return
		}
		s := New(0)
		mine := create(t, s, &simv1.CreateRequest{Environment: "cage2", Worlds: 2, Seed: 3})
		other := create(t, s, &simv1.CreateRequest{Environment: "cage2", Worlds: 2, Seed: 3})
		want, err := s.Step(context.Background(), &simv1.StepRequest{Session: other.Session, Actions: pack(5, 6)})
		if err != nil {
			t.Fatal(err)
		}
		other = create(t, s, &simv1.CreateRequest{Environment: "cage2", Worlds: 2, Seed: 3})
		r := httptest.NewRequest("POST", "/omega.sim.v1.Environments/"+method, bytes.NewReader(bytes.ReplaceAll(body, []byte("SESSION"), []byte(mine.Session))))
		r.Header.Set("Content-Type", kind)
		w := httptest.NewRecorder()
		s.Handler(false).ServeHTTP(w, r)
		if w.Code >= 500 && w.Code != http.StatusNotImplemented && w.Code != http.StatusHTTPVersionNotSupported {
			t.Fatalf("%s %s: %d %s", method, kind, w.Code, w.Body)
		}
		if w.Code >= 400 && strings.HasPrefix(kind, "application/json") && w.Body.Len() > 0 {
			var told struct{ Code, Message string }
			if err := json.Unmarshal(w.Body.Bytes(), &told); err == nil && told.Code == "internal" {
				t.Fatalf("an error that is not the client's: %s", w.Body)
			}
		}
		got, err := s.Step(context.Background(), &simv1.StepRequest{Session: other.Session, Actions: pack(5, 6)})
		if err != nil || !bytes.Equal(got.Rewards, want.Rewards) || !bytes.Equal(got.Observations, want.Observations) {
			t.Fatalf("another's session was disturbed: %v", err)
		}
	})
}

func TestServeEndsWithItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := New(0).Serve(ctx, l); err != nil {
		t.Error(err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener is open: %v", err)
	}
}
