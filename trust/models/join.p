% Joining by a token: trust/authority/join.go (ProveJoin, VerifyJoin) and membership.go (applyAdmit: every peer's check of an
% admission). Horn clauses, Dolev-Yao attacker; how often a token may be used is invite.pml's question.
%
% j is an honest joiner with a token, p an honest member, m a member that the attacker owns, x a further identity of the
% attacker's, which has no token. ik is the invite key that the token's seed gives. ex(P,Q) is the keying material of a
% connection from P to Q. admit, channel and joiner are the three signatures of a join proof; att(X) is "the attacker has X".
%
% Attacks: x counts as a member; or an honest member admits j over a connection that j did not make.

cnf(admits_p, axiom, admits(p)).
cnf(admits_m, axiom, admits(m)).
cnf(evil_m, axiom, evil(m)).
cnf(evil_x, axiom, evil(x)).
cnf(dials_j, axiom, dials(j)).
cnf(dials_m, axiom, dials(m)).
cnf(dials_x, axiom, dials(x)).

% The joiner shows its token to whichever member answers, the attacker's too; what it sends reaches the attacker.
cnf(joiner_admit, axiom, att(admit(ik,j))).
cnf(joiner_channel, axiom, att(channel(ik,j,ex(j,P))) | ~admits(P)).
cnf(joiner_joiner, axiom, att(joiner(j,ik,ex(j,P))) | ~admits(P)).

% The attacker signs with the keys of its identities, on connections of its own.
cnf(attacker_joiner, axiom, att(joiner(X,ik,ex(Y,P))) | ~evil(X) | ~evil(Y) | ~admits(P)).

% An honest member admits who shows all three, bound to this very connection.
cnf(member_admits, axiom, admitted(X,ex(Q,p)) | ~dials(Q) | ~att(admit(ik,X)) | ~att(channel(ik,X,ex(Q,p))) | ~att(joiner(X,ik,ex(Q,p)))).

% Every peer counts a member's admission, of which only the admit signature travels: the attacker's member may write any.
cnf(peers_count, axiom, counted(X) | ~att(admit(ik,X))).

cnf(attack_sybil, axiom, attack | ~counted(X) | ~evil(X)).
cnf(attack_relay, axiom, attack | ~admitted(j,ex(Q,p)) | ~evil(Q)).
cnf(goal, negated_conjecture, ~attack).

% Joining works at all.
%sanity honest_join: cnf(goal, negated_conjecture, ~admitted(j,ex(j,p)) | ~counted(j)).

% An admit signature that does not name the joiner: the member it is shown to admits its own identities with it.
%mutant nameless: cnf(peers_count, axiom, counted(X) | ~dials(X) | ~att(admit(ik,Y))).
% A proof that is not bound to the connection: the attacker shows the joiner's to an honest member as its own connection's.
%mutant unbound: cnf(member_admits, axiom, admitted(X,ex(Q,p)) | ~dials(Q) | ~att(admit(ik,X)) | ~admits(P) | ~att(channel(ik,X,ex(X,P))) | ~att(joiner(X,ik,ex(X,P)))).
