// Package selftest performs, on itself and harmlessly, each thing that the sensors watch for: so that what a host can see
// is not what its programs loaded say, but what arrived. Perform is the life of a short process in the node's own scope;
// a Watch looks for its events among all others by a secret that only its starter knows, keeps them from the detectors,
// and says which came. It decides nothing: what a host's coverage is, the sentinel says.
package selftest
