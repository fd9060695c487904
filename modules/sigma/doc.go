// Package sigma runs Sigma rules (specification 2.1.0) over events: detection rules with every modifier and form of
// condition, correlation rules, and filters. All rules of a set become one matcher: an event's fields are fetched once,
// the literals that rules cannot do without are looked for together, and only a rule whose literal is there is
// evaluated. So an event costs what it matches, not how many rules there are.
//
// A rule that no sensor here can ever match is reported as not applicable, with the reason; one that is no Sigma is
// rejected. Regular expressions are RE2's: a pattern cannot make matching slow.
package sigma
