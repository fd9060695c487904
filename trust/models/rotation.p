% Rotation by pre-commitment: trust/identity (NextHash of the inception record; the rotation record and its readers).
% Horn clauses, Dolev-Yao attacker, three rotations of one identity.
%
% Number N of the identity has the private key k(N); pub(K) is its public half, h(pub(K)) the commitment to it. The attacker
% has stolen the key in use, k(n0), and has a key of its own, e; keys that lie committed and unused it has not (the code keeps
% them elsewhere). rot(K,N,P,C) is a rotation to number N, signed with K: P is the new public key, C the commitment to the one
% after. commits(N,C): some reader will take for number N the key with that hash. A thief of k(N) who comes after number N was
% taken contests it: that is no attack here, but an alarm.
%
% Attack: a reader will take a key of the attacker's own for the identity's.

cnf(next_0, axiom, next(n0,n1)).
cnf(next_1, axiom, next(n1,n2)).
cnf(next_2, axiom, next(n2,n3)).
cnf(inception, axiom, commits(n1,h(pub(k(n1))))).
cnf(stolen, axiom, att(k(n0))).
cnf(attacker_key, axiom, att(e)).

% The owner rotates to number N with the committed key, which shows its public half; the attacker sees it.
cnf(owner_rotates, axiom, seen(rot(k(N),N,pub(k(N)),h(pub(k(M))))) | ~next(N,M) | ~commits(N,h(pub(k(N))))).
cnf(owner_shows, axiom, known(pub(k(N))) | ~commits(N,h(pub(k(N))))).

% The attacker signs with every key it has: rotations to any public key it knows, with its own to follow.
cnf(attacker_knows, axiom, known(pub(K)) | ~att(K)).
cnf(attacker_rotates, axiom, seen(rot(K,N,P,h(pub(e)))) | ~att(K) | ~known(P) | ~next(N,M)).

% A reader takes a rotation that the revealed key signed, where its hash is the one committed to.
cnf(reader_accepts, axiom, commits(M,C) | ~next(N,M) | ~seen(rot(K,N,pub(K),C)) | ~commits(N,h(pub(K)))).

cnf(attack, axiom, attack | ~commits(N,h(pub(e)))).
cnf(goal, negated_conjecture, ~attack).

% The owner can rotate, and again.
%sanity owner_rotates_twice: cnf(goal, negated_conjecture, ~commits(n3,h(pub(k(n3))))).

% Signed by the current key, with the next one only revealed: who stole the current key and saw the owner's rotation makes a
% competing one to the same key, which names its own as the one after.
%mutant signed_by_the_current: cnf(reader_accepts, axiom, commits(M,C) | ~next(N,M) | ~seen(rot(K,N,P,C)) | ~commits(N,h(P))).
% No commitment: the current key is enough to go on with any other.
%mutant uncommitted: cnf(reader_accepts, axiom, commits(M,C) | ~next(N,M) | ~seen(rot(K,N,P,C)) | ~commits(N,D)).
