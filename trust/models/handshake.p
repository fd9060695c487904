% The mutual proof on a connection: swarm/auth/handshake.go (Initiate, Respond, message), over the TLS exporter of
% swarm/transport/state.go. Horn clauses over ground agents and unboundedly many sessions, Dolev-Yao attacker.
%
% a and b are honest members, m is a member that the attacker owns. ex(P,Q) is the keying material of a TLS connection made
% by P to Q: whoever the ends are, both have it, and no one else. TLS is not trusted to say who the other end is (the code
% checks that, too), and an honest peer answers whoever claims to be a member, even itself: what stands here stands on the
% signatures alone. sig(K,Role,E,I,R) is K's signature of role, keying material, initiator and responder; att(X) is "the
% attacker has X"; all signatures reach it.
%
% Attack: a peer believes to talk with an honest one on a connection whose other end is not that peer.

cnf(agents, axiom, member(a)).
cnf(agents_b, axiom, member(b)).
cnf(agents_m, axiom, member(m)).
cnf(honest_a, axiom, honest(a)).
cnf(honest_b, axiom, honest(b)).

% The responder knows the claimed peer as a member, and signs first.
cnf(responder_signs, axiom, att(sig(R,responder,ex(P,R),I,R)) | ~honest(R) | ~member(P) | ~member(I)).

% The initiator checks the responder's proof on its own connection, believes it, and signs.
cnf(initiator_believes, axiom, initiator_believes(I,R,ex(I,Q)) | ~honest(I) | ~member(Q) | ~member(R) | ~att(sig(R,responder,ex(I,Q),I,R))).
cnf(initiator_signs, axiom, att(sig(I,initiator,ex(I,Q),I,R)) | ~initiator_believes(I,R,ex(I,Q))).

% The responder checks the initiator's.
cnf(responder_believes, axiom, responder_believes(R,I,ex(P,R)) | ~honest(R) | ~member(P) | ~member(I) | ~att(sig(I,initiator,ex(P,R),I,R))).

% The attacker signs what it likes with its own key, on connections of its own.
cnf(attacker_dials, axiom, att(sig(m,Role,ex(m,Q),I,R)) | ~member(Q) | ~role(Role) | ~member(I) | ~member(R)).
cnf(attacker_is_dialled, axiom, att(sig(m,Role,ex(P,m),I,R)) | ~member(P) | ~role(Role) | ~member(I) | ~member(R)).
cnf(role_i, axiom, role(initiator)).
cnf(role_r, axiom, role(responder)).

% An honest peer that is believed at the other end of the attacker's connection.
cnf(attack_responder, axiom, attack | ~responder_believes(R,I,ex(m,R)) | ~honest(I)).
cnf(attack_initiator, axiom, attack | ~initiator_believes(I,R,ex(I,m)) | ~honest(R)).
cnf(goal, negated_conjecture, ~attack).

% The handshake works at all: two honest peers believe each other on their own connection.
%sanity honest_run: cnf(goal, negated_conjecture, ~responder_believes(b,a,ex(a,b)) | ~initiator_believes(a,b,ex(a,b))).

% Without the keying material in the signature, a proof made for the attacker's connection is relayed to another.
%mutant unbound: cnf(responder_believes, axiom, responder_believes(R,I,ex(P,R)) | ~honest(R) | ~member(P) | ~member(I) | ~member(Q) | ~att(sig(I,initiator,ex(I,Q),I,R))).
% Without the role byte, a responder's own proof comes back to it as the initiator's: it takes the attacker for itself.
%mutant reflected: cnf(responder_believes, axiom, responder_believes(R,I,ex(P,R)) | ~honest(R) | ~member(P) | ~member(I) | ~role(Role) | ~att(sig(I,Role,ex(P,R),I,R))).
