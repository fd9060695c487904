// Package serve lets any trainer play in our worlds: it holds batches of them in sessions, and answers reset and step
// for a whole batch with one call, as Connect, gRPC or plain JSON over HTTP. Who plays is free: the defender as in
// Gymnasium, or several sides at once as in PettingZoo's parallel API; sides that no client plays follow their scripts.
//
// The engines are sim/cage2 and sim/world; this package adds spaces, masks, the ends of episodes, and bounds on what a
// client may ask. World i's episode e has the stream Stream(seed, i, e), so that what a client was given can be had again
// in Go, bit for bit. Whoever can connect can use it: it listens where it is told and grants nothing else.
//
// omega_sim.py, beside this file, is the client: one file, Debian's python3 and python3-numpy.
package serve
