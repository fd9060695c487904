// Package integrity knows what watched files were and says in what they differ now. Take reads a host's watched paths into
// a Baseline: of each entry a BLAKE3 digest, owner, mode, extended attributes (file capabilities are one) and a link's
// target. Compare tells two baselines apart, and Root folds one into 32 bytes: whoever keeps the root elsewhere knows of an
// entry and a baseline that were changed together. It reads files of the host it runs on, as who may read them, and holds
// their digests, never their content.
package integrity
