/* A token of one use, shown to two members at once: trust/authority/invite.go and membership.go (count, settle, rebuild).
 *
 * Two members each admit another joiner with the one token, dated as each pleases. The admissions reach three observers in
 * any order. An observer counts, of all it has, the first by (effective time, entry): not the first it heard of.
 *
 * Holds: once everything arrived, all observers count the same joiner, exactly one, and all raise the alarm (overspent).
 * MUTANT_ARRIVAL counts who arrived first: observers differ. MUTANT_QUIET forgets the alarm where the later one came first. */

#define MEMBERS 2
#define OBSERVERS 3

byte when[MEMBERS];            /* the dates the members claim */
byte counted[OBSERVERS] = 255; /* the joiner that counts: number of the member that admitted it */
bool overspent[OBSERVERS];
byte done = 0;

inline hear(o, m) {
	d_step {
		if
		:: counted[o] == 255 -> counted[o] = m
		:: else ->
#ifdef MUTANT_ARRIVAL
			overspent[o] = true
#else
			if
			:: when[m] < when[counted[o]] || (when[m] == when[counted[o]] && m < counted[o]) ->
				counted[o] = m;
#ifndef MUTANT_QUIET
				overspent[o] = true
#endif
			:: else -> overspent[o] = true
			fi
#endif
		fi
	}
}

proctype Observer(byte o) {
	if
	:: hear(o, 0); hear(o, 1)
	:: hear(o, 1); hear(o, 0)
	fi;
	done++
}

init {
	byte i;
	for (i : 0 .. MEMBERS - 1) {
		if :: when[i] = 1 :: when[i] = 2 fi
	}
	atomic {
		for (i : 0 .. OBSERVERS - 1) { run Observer(i) }
	}
	(done == OBSERVERS);
	for (i : 0 .. OBSERVERS - 1) {
		assert(counted[i] != 255);
		assert(counted[i] == counted[0]);
		assert(overspent[i])
	}
}
