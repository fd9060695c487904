// Package models holds formal models of the protocols of trust and swarm, and the test that runs them. A model says in its
// first lines what it models and where the code is, what must hold, and what it assumes.
//
// Those that end in .p are Horn clauses for the E prover: unboundedly many sessions and an attacker that sees and sends
// everything (Dolev-Yao). "Satisfiable" means that the clauses are saturated and no attack follows. Those that end in .pml
// are for Spin: every order of finitely many steps. Each model carries mutants, its own rules with one spoilt as a careless
// programmer would, for which an attack must be found: a model that cannot fail shows nothing. Nothing here is in the binary.
package models
