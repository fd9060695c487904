package learn

import (
	"math/bits"

	"github.com/omega-mesh/omega/sim/cage2"
)

// MaxChoices bounds the number of outputs of a policy.
const MaxChoices = 128

// Mask is the set of choices that are allowed, bit i for choice i.
type Mask [2]uint64

func (m *Mask) allow(i int)    { m[i>>6] |= 1 << (i & 63) }
func (m *Mask) has(i int) bool { return m[i>>6]>>(i&63)&1 == 1 }
func (m *Mask) count() int     { return bits.OnesCount64(m[0]) + bits.OnesCount64(m[1]) }

// choices are the defender's actions that can make a difference: of the 145 many never do (a decoy that the host's
// system refuses, Remove where no session can be removed, Monitor, which is Sleep).
var choices = func() (list []cage2.Action) {
	list = append(list, cage2.Sleep)
	for _, h := range defended {
		list = append(list, cage2.Do(cage2.Restore, h))
	}
	for _, h := range removable {
		list = append(list, cage2.Do(cage2.Remove, h))
	}
	for _, h := range analysed {
		list = append(list, cage2.Do(cage2.Analyse, h))
	}
	empty := cage2.NewState(cage2.Leaderboard)
	for h := cage2.Enterprise0; h < cage2.Hosts; h++ { // on Defender, which red cannot take, a decoy changes nothing
		for d := cage2.Apache; d <= cage2.Vsftpd; d++ {
			if empty.CanPlace(d, h) {
				list = append(list, cage2.PlaceDecoy(d, h))
			}
		}
	}
	return list
}()

var (
	// The hosts that can be lost and won back: red keeps User0, and never takes Defender.
	defended = []cage2.Host{cage2.Enterprise0, cage2.Enterprise1, cage2.Enterprise2, cage2.OpHost0, cage2.OpHost1, cage2.OpHost2,
		cage2.OpServer0, cage2.User1, cage2.User2, cage2.User3, cage2.User4}
	// The hosts where an exploit opens a session as a service's account, which Remove ends if its opening was seen.
	removable = []cage2.Host{cage2.Enterprise1, cage2.Enterprise2, cage2.User2, cage2.User3, cage2.User4}
	analysed  = []cage2.Host{cage2.Enterprise0, cage2.Enterprise1, cage2.Enterprise2, cage2.OpServer0, cage2.User1, cage2.User2, cage2.User3, cage2.User4}

	// Where the decoys begin among the choices, and which they are: each also has two inputs.
	firstDecoy = 1 + len(defended) + len(removable) + len(analysed)
)
