// Package wasm runs modules that are WebAssembly: a guest is given events in batches in its own memory and gives findings
// back the same way, by the contract in ../ABI.md. A guest has no file, no network, no environment and no real clock; it
// asks for what its manifest names through a handful of host functions, and it runs on fuel (package meter): a call that
// does too much stops at the same instruction on every host, and the instance goes on with the next batch.
package wasm
