/* Two valid children of one root entry: trust/root/tree.go (State, frozen).
 *
 * k = 2 of 3 operators; one of them, with its key in two hands, has signed both children: A, with operator 1, revokes a peer;
 * B, with operator 2, grants that peer a role. Both have k signatures. They reach three observers in any order; in between
 * and after, the peer asks each observer to act for it.
 *
 * Holds: no observer that has heard of the fork acts for the peer; once both arrived, all observers say the same: revoked,
 * nothing granted, frozen, alarm. MUTANT_FIRST follows the child that came first. MUTANT_LAST lets the later one win. */

#define OBSERVERS 3

bool heardA[OBSERVERS], heardB[OBSERVERS];
bool revoked[OBSERVERS], granted[OBSERVERS], frozen[OBSERVERS], acted[OBSERVERS];
byte done = 0;

/* What an observer derives from the set it has. */
inline derive(o, news) {
	d_step {
#ifdef MUTANT_FIRST
		if
		:: news == 1 && !heardB[o] -> revoked[o] = true
		:: news == 2 && !heardA[o] -> granted[o] = true
		:: else -> frozen[o] = true
		fi;
#endif
#ifdef MUTANT_LAST
		revoked[o] = (news == 1);
		granted[o] = (news == 2);
		frozen[o] = heardA[o] || heardB[o];
#endif
		if
		:: news == 1 -> heardA[o] = true
		:: else -> heardB[o] = true
		fi;
#if !defined(MUTANT_FIRST) && !defined(MUTANT_LAST)
		frozen[o] = heardA[o] && heardB[o];
		revoked[o] = heardA[o];                 /* revocations of either branch */
		granted[o] = heardB[o] && !frozen[o];   /* grants of neither */
#endif
		skip
	}
}

inline ask(o) {
	d_step {
		acted[o] = granted[o] && !revoked[o];
		assert(!(acted[o] && heardA[o] && heardB[o]))
	}
}

proctype Observer(byte o) {
	if
	:: derive(o, 1); ask(o); derive(o, 2); ask(o)
	:: derive(o, 2); ask(o); derive(o, 1); ask(o)
	fi;
	done++
}

init {
	byte i;
	atomic {
		for (i : 0 .. OBSERVERS - 1) { run Observer(i) }
	}
	(done == OBSERVERS);
	for (i : 0 .. OBSERVERS - 1) {
		assert(frozen[i] && revoked[i] && !granted[i]);
		assert(revoked[i] == revoked[0] && granted[i] == granted[0])
	}
}
