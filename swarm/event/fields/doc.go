// Package fields is the one table of what can be asked of an event: every field's name in an expression, its path in
// OCSF JSON, its names in Sigma rules, where its value comes from, and how it is read. The expressions of the API
// compile from it, rules are matched by it, and the field reference is printed from it, so that the three cannot differ.
//
// Reading a field allocates nothing, save the name of a DNS type that has none. It holds no language: that is the caller's.
package fields

//go:generate env UPDATE_GOLDEN=1 go test -count=1 -run ^TestReference$ .
