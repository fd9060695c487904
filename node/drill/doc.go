// Package drill runs real, harmless attack steps in a testnet, and measures what the swarm makes of them: what was
// seen, by which rule, how soon, and how long after the attacker's first packet every kernel refused it. Its figures
// are CLOCK_BOOTTIME stamps of the attacker's own process and of signed receipts; its proof is real connections.
package drill
