// Package modules is detection logic that travels: a signed bundle named by its content (CID), run by the engine of its
// kind (WASM, Sigma, Lua, indicators) behind one Detector contract. A module is fetched from whoever has it, checked
// against its name, and changed while everything else runs; it is never trusted with the host.
//
// This package has the contract and the manifest. Engines lie beneath it, one a folder; where modules are stored and how
// they come from other peers is theirs too, and node wires them to the sentinel's events.
package modules
