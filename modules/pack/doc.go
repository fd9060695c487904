// Package pack is the set of detections that comes with the program: rules of our own for ATT&CK techniques on Linux, each
// with the reason why it is bad and what to do about it. Most are Sigma; where a rule must remember or compute, the same
// file's detection is a gate, and what passes it is asked of a Lua or WASM module that lies beside it. All gates and rules
// are one matcher, so that an event that nothing is found in costs as much as one look, and engines start when first
// needed. The sentinel runs it as it runs its own detectors; `omega rules` shows it.
package pack

//go:generate sh -c "for f in rules/*/*.wat; do wat2wasm $DOLLAR{f} -o $DOLLAR{f%.wat}.wasm || exit 1; done"
