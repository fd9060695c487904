package inventory

import (
	"fmt"
	"math"
	"strings"
)

// exploit is what a CVSS vector says of an attempt.
type exploit struct {
	remote bool    // over the network; otherwise from a session on the host
	takes  bool    // it gives control, not only a look or a crash
	chance float64 // that an attempt works
}

// surest is the chance of success given to an attempt at the easiest hole there is: one that the network reaches, of low
// complexity, without privileges or help. A public exploit for such a hole seldom fails, but sometimes does.
const surest = 0.9

// parseCVSS reads a CVSS v3.0 or v3.1 base vector (first.org/cvss/v3.1/specification-document). The chance is the
// exploitability sub-score (8.22 x AV x AC x PR x UI) over its greatest value, times surest: an order of ease among
// holes, not a measured rate. A hole gives control where its impact on integrity is high.
func parseCVSS(vector string) (exploit, error) {
	rest, ok := strings.CutPrefix(vector, "CVSS:3.1/")
	if !ok {
		if rest, ok = strings.CutPrefix(vector, "CVSS:3.0/"); !ok {
			return exploit{}, fmt.Errorf("%q is no CVSS v3 vector", clip(vector))
		}
	}
	m := map[string]string{}
	for part := range strings.SplitSeq(rest, "/") {
		k, v, ok := strings.Cut(part, ":")
		if _, again := m[k]; !ok || again || len(m) > 40 {
			return exploit{}, fmt.Errorf("CVSS vector %q: %q is malformed or stands twice", clip(vector), clip(part))
		}
		m[k] = v
	}
	ease := 8.22
	privileges := map[string]float64{"N": 0.85, "L": 0.62, "H": 0.27}
	if m["S"] == "C" {
		privileges = map[string]float64{"N": 0.85, "L": 0.68, "H": 0.5}
	}
	for _, metric := range []struct {
		name   string
		values map[string]float64
	}{
		{"AV", map[string]float64{"N": 0.85, "A": 0.62, "L": 0.55, "P": 0.2}},
		{"AC", map[string]float64{"L": 0.77, "H": 0.44}},
		{"PR", privileges},
		{"UI", map[string]float64{"N": 0.85, "R": 0.62}},
	} {
		v, ok := metric.values[m[metric.name]]
		if !ok {
			return exploit{}, fmt.Errorf("CVSS vector %q: %s is missing or unknown", clip(vector), metric.name)
		}
		ease *= v
	}
	for _, name := range []string{"C", "I", "A"} {
		if v := m[name]; v != "H" && v != "L" && v != "N" {
			return exploit{}, fmt.Errorf("CVSS vector %q: %s is missing or unknown", clip(vector), name)
		}
	}
	if m["S"] != "U" && m["S"] != "C" {
		return exploit{}, fmt.Errorf("CVSS vector %q: S is missing or unknown", clip(vector))
	}
	const easiest = 8.22 * 0.85 * 0.77 * 0.85 * 0.85
	return exploit{
		remote: m["AV"] == "N" || m["AV"] == "A",
		takes:  m["I"] == "H" && m["AV"] != "P",
		chance: math.Round(100*surest*ease/easiest) / 100,
	}, nil
}
