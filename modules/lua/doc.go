// Package lua runs modules that are Lua: a rule written in a minute, over the same events as the others. A script has a
// function detect(e) that gives back what it found, or nothing. It runs on fuel as a WASM guest does: each instruction
// counts, and what a single one could make grow without end (joining texts, setting a far index) is counted by its size,
// so that time and memory are bounded together. There is no file, no module, no clock and no code made of text; patterns
// are RE2's, since Lua's own can take for ever.
package lua
