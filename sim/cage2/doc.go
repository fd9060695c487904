// Package cage2 is an exact model of CAGE Challenge 2, scenario 2: the public benchmark in which a defender (blue) keeps
// an attacker (red) out of thirteen hosts for up to a hundred steps. It is the proof that what our simulator says can be
// believed: given the chances as they fell, it gives the reference environment's observation bits, reward, red
// privileges and service state at every recorded step, in both published versions.
//
// A State is a flat value of some 200 bytes without pointers: copying it is a checkpoint, and a step allocates nothing.
// The rules (State.Step) are a pure function of state, actions and the outcome of chance; World adds the chance and the
// scripted attackers. Replay compares the rules with recordings; Evaluate measures a defender over the nine settings of
// the challenge's leaderboard.
//
// The package knows nothing of learning or planning; see sim/planner for that.
package cage2
