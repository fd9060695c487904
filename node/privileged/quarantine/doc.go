// Package quarantine takes a file out of reach and gives it back as it was.
//
// A file that is quarantined is copied into a store of the privileged half, scrambled so that nothing that reads or
// runs it by accident knows it again, with a record of all that made it what it was: path, owner, mode, times, extended
// attributes, capabilities, attributes of the file system, SHA-256. Then its name is taken away. A release writes the
// same bytes back under the same name with the same record.
//
// The key of a sealed copy stands in its record: the seal keeps scanners, backups and users from what is in it, not
// root, who needs it to give the file back.
//
// The copy and its record are on disk before the name is touched. A power cut at any step leaves the file where it was
// or a copy that can be given back; Open settles which.
//
// What may be quarantined is not asked here: the caller holds what Find opened against its rails, by the inode.
package quarantine
