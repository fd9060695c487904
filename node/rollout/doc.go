// Package rollout puts into effect on this host what the swarm deployed: it keeps every released module, fetched from
// whoever has it, builds those that are for this host off the way of the events, and exchanges them between two events.
// What traps or is slow, and a canary that is less slow or floods, is taken out again, and what ran before goes on.
//
// It stands between the authority, which says what runs where, and the sentinel, which sees one detector: Set.
package rollout
