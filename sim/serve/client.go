package serve

import _ "embed"

//go:embed omega_sim.py
var clientSource []byte

//go:embed example.py
var exampleSource []byte

// Client is the Python client's source: one file that needs python3 and numpy.
func Client() []byte { return clientSource }

// Example is the source of a trainer that uses the client.
func Example() []byte { return exampleSource }
