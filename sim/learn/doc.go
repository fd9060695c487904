// Package learn trains defenders and attackers for CAGE-2 and plays what was trained. A policy is a float32 network over
// what its side knows (Memory, AttackerMemory), given as the list of the bits that are set; it is trained by proximal
// policy optimisation with action masks in many worlds at once, beside a critic that is shown the whole truth and is not
// needed afterwards. Policy-space response oracles add attackers that nobody scripted: each is a best response to the
// defenders so far, and the defender goes on against their mixture and the scripts.
//
// Everything that is drawn comes from one seed, and sums are taken in a fixed order: the same options give the same bytes
// on any number of cores of one processor architecture. The trained weights are part of the package (Trained); one
// decision takes some microseconds and allocates nothing.
//
// The package knows nothing of planning (sim/planner) and nothing of the live swarm.
package learn
