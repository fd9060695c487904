/* A revocation against a handshake that is under way: swarm/session.go (connected, catchUp, live), swarm/host (the network's
 * own list of connections) and Swarm.Revoked, which closes them.
 *
 * The revoked peer dials on two connections, as often as it likes. Each is put into the list before its handshake asks who is
 * a member, and served after. The revocation is first marked in the fold, then closes what the list has.
 *
 * Holds: once the revocation is through and the handshakes are, no connection of the peer is open. MUTANT_LATE_LIST puts a
 * connection into the list after the question; MUTANT_LATE_MARK closes before it marks. Each leaves one open. */

#define CONNS 2
#define TRIES 2

bool revoked = false;
bool listed[CONNS], open[CONNS], served[CONNS];
bool through = false;
byte done = 0;

proctype Connection(byte c) {
	byte tries = 0;
	bool member;
	do
	:: tries < TRIES ->
		tries++;
		served[c] = false;
		open[c] = true;
#ifndef MUTANT_LATE_LIST
		listed[c] = true;
#endif
		member = !revoked;
#ifdef MUTANT_LATE_LIST
		listed[c] = true;
#endif
		if
		:: member && open[c] -> served[c] = true
		:: else -> open[c] = false; listed[c] = false
		fi;
		if
		:: true -> break               /* it stays */
		:: true -> open[c] = false; listed[c] = false /* it ends, and the peer dials again */
		fi
	:: else -> break
	od;
	done++
}

proctype Revocation() {
	byte i;
#ifndef MUTANT_LATE_MARK
	revoked = true;
#endif
	for (i : 0 .. CONNS - 1) {
		if
		:: listed[i] -> open[i] = false; listed[i] = false
		:: else -> skip
		fi
	}
#ifdef MUTANT_LATE_MARK
	revoked = true;
#endif
	through = true
}

init {
	byte i;
	atomic {
		for (i : 0 .. CONNS - 1) { run Connection(i) }
		run Revocation()
	}
	(through && done == CONNS);
	for (i : 0 .. CONNS - 1) {
		assert(!(open[i] && served[i]))
	}
}
