package trust

import "time"

// Every bound an attacker can push against, and its reason. A decoder checks the size before it reads a byte; a bound
// that both sides of the wire must share is part of the format, and changing it is a change of format.

// Names and records.
const (
	// MaxName is the longest name of a peer or a swarm, in bytes: a DNS label, so that host names fit.
	MaxName = 63
	// MaxInception bounds an inception record of either suite: the larger has a key of 2592 and signatures of 4627 + 64
	// bytes, with name and framing about 7.3 KiB.
	MaxInception = 8 << 10
	// MaxRotation bounds a rotation record: key, signature, five hashes and framing, about 5.6 KiB, and 7.5 KiB in the
	// larger suite.
	MaxRotation = 8 << 10
	// MaxRotations is how often one identity may rotate: monthly for ten years. Each is held in memory by every peer (a
	// public key and five hashes), and lets its author take back what it said since; so there is an end to it.
	MaxRotations = 128
	// MaxOperators is the most operators a genesis may name: each costs an inception (5.6 or 7.3 KiB) in every join reply.
	MaxOperators = 16
	// MaxRecoveryKeys is the most SLH-DSA recovery keys a genesis may name.
	MaxRecoveryKeys = 16
	// MaxGenesis bounds a genesis record: MaxOperators inceptions and the rest.
	MaxGenesis = MaxOperators*MaxInception + 4<<10
	// MaxReason is the longest free text of an authority entry (why a peer was revoked), in bytes.
	MaxReason = 512
	// MaxRole is the longest role name, in bytes.
	MaxRole = 32
	// MaxRoles is the most roles in one grant, invite or member: five exist, others may come with modules.
	MaxRoles = 16
	// MaxContext is the longest signature context, in bytes (the draft's ctx has a one-byte length).
	MaxContext = 255
)

// Entries.
const (
	// MaxActivityBody bounds the body of a finding, summary or receipt: raw telemetry never travels, so 16 KiB is ample.
	MaxActivityBody = 16 << 10
	// MaxAuthorityBody bounds the body of an authority entry: an admission is 11 or 15 KiB, a policy text may be longer.
	MaxAuthorityBody = 24 << 10
	// MaxEvidenceBody bounds the one body that holds other entries: two conflicting authority entries, or two activity
	// entries with the certificates of their epoch keys.
	MaxEvidenceBody = 2*(MaxAuthorityBody+MaxEntryOverhead) + 1<<10
	// MaxEntryOverhead is everything of an entry but its body: signature 4627 (of the larger suite), MaxSeen heads of at most 84 bytes, header.
	MaxEntryOverhead = 4627 + MaxSeen*84 + 256
	// MaxRootBody bounds an entry of the root chain, the body of a root entry. Sixteen composite signatures of the larger
	// suite (4627 bytes) or nine SLH-DSA-SHA2-128s ones (7856) with the inceptions of eight new operators fit.
	MaxRootBody = 120 << 10
	// MaxEntry bounds one entry on the wire and on disk, in bytes.
	MaxEntry = MaxRootBody + MaxEntryOverhead
	// MaxSeen is the most heads one entry names: what changed since the author's last; the rest comes with the next.
	MaxSeen = 16
	// MaxDepth is the deepest nesting of any CBOR value here. The deepest in use is a finding's subject's process key.
	MaxDepth = 8
	// MaxElements is the most elements of one CBOR array or pairs of one map.
	MaxElements = 1024
)

// Time.
const (
	// MaxClockSkew is how far ahead of this peer's clock an entry may be dated. Past it the entry is refused as from the
	// future: a claimed time is what a quota refills by, so it must not be free. NTP keeps hosts within a second; five
	// minutes is what Kerberos allows.
	MaxClockSkew = 5 * time.Minute
	// EpochLifetime is how long an Ed25519 epoch key may sign: a stolen memory image forges for an hour at most, and
	// nothing it forges is sealed.
	EpochLifetime = time.Hour
	// SealEvery is the most entries that may stand unsealed: a composite signature (190 us) over 64 entries costs 3 us each.
	SealEvery = 64
	// SealAfter is the longest an entry may stand unsealed on a running peer.
	SealAfter = 10 * time.Second
	// MaxSuspension is the longest one operator alone may keep a peer out; longer takes k of them (fast when hurt, slow
	// when generous).
	MaxSuspension = 24 * time.Hour
	// MaxLifetime is the upper bound of genesis's own longest lifetime of a response: nothing is blocked for ever.
	MaxLifetime = 30 * 24 * time.Hour
	// MaxInviteLifetime is the longest an invite may be used.
	MaxInviteLifetime = 30 * 24 * time.Hour
)

// Rates. They bind content: a feed's claimed times and numbers decide, not when or from whom an entry arrives, so that
// gossip and sync agree. Each is a bucket that refills with the author's claimed time, which only moves forward.
const (
	// ActivityRate is the sustained entries a second of one activity chain, ActivityBurst what may come at once (a scan
	// of the whole swarm, or the entries of a healed partition).
	ActivityRate  = 10
	ActivityBurst = 4096
	// ActivityBytes and ActivityBytesBurst bound the same chain in bytes: 16 KiB/s is 1.3 GiB a day from a hostile peer.
	ActivityBytes      = 16 << 10
	ActivityBytesBurst = 8 << 20
	// AuthorityRate is the sustained entries a second of one authority chain. The burst admits 3,000 joiners through one
	// peer at once.
	AuthorityRate       = 1
	AuthorityBurst      = 4096
	AuthorityBytes      = 16 << 10
	AuthorityBytesBurst = 64 << 20
	// MaxAhead is how far past the next number of a feed a gossiped entry may be and still be passed on before it links:
	// gossip reorders by a few. MaxAheadPasses is how many such may pass until the feed moves.
	MaxAhead       = 2 * SealEvery
	MaxAheadPasses = 256
)

// Root.
const (
	// MaxRootEntries is the most entries of the root chain, forks included, that a peer keeps: each took k operators, so
	// only they can fill it; a change a day for eleven years.
	MaxRootEntries = 4096
	// MaxRootHeld is the most bytes of root entries kept for one member that carried them before their parents came, and
	// MaxRootHeldAll for all members: a hostile one fills its own share only, sixteen of them the whole.
	MaxRootHeld    = 2 << 20
	MaxRootHeldAll = 32 << 20
	// MaxIssuers is the most issuers, MaxReleases the most releases that stand at once; a newer release of the same name
	// replaces the older.
	MaxIssuers  = 256
	MaxReleases = 1024
	// SuspendAgain is how long one operator alone may not suspend the same peer again. SuspendShare is the part of the
	// members (one in so many) that it may keep out at once; one peer at least.
	SuspendAgain = 7 * 24 * time.Hour
	SuspendShare = 10
	// MaxSuspensions is the most suspensions and votes of one operator against one peer that are kept, the newest.
	MaxSuspensions = 32
	// MaxWaiting is the most entries, and MaxWaitingBytes the most bytes of them, kept of one author that speaks as an
	// operator and is none yet: they count when a change of the root makes it one. MaxWaitingAll is for all authors.
	MaxWaiting      = 256
	MaxWaitingBytes = 1 << 20
	MaxWaitingAll   = 32 << 20
	// MaxSilence is how long a peer acts on new grants, and responds by itself for the swarm, without a word from any
	// other member that proves it knows the authority chains: past it a revocation may have been missed. It is the
	// longest suspension, so that none can be waited out.
	MaxSilence = 24 * time.Hour
)

// Membership.
const (
	// MaxMembers is the most members a swarm may have: ten times the largest swarm Omega is meant for.
	MaxMembers = 30_000
	// MaxInvites is the most invites the fold keeps, used and expired ones included.
	MaxInvites = 16_384
	// MaxInviteUses is the most joiners of one invite: a withdrawal names those that stand, and must fit in a body.
	MaxInviteUses = 512
	// MaxTokenAddrs is the most addresses in a token, MaxTokenAddr the longest of them: the token must stay one line.
	MaxTokenAddrs = 3
	MaxTokenAddr  = 128
	// MaxToken is the longest token text, in bytes.
	MaxToken = 1024
	// MaxJoinProof bounds what a stranger may send before it is a member: inception, invite key, three signatures: 18 or
	// 24 KiB.
	MaxJoinProof = 26 << 10
	// MaxHeld is the most entries the fold keeps waiting for what they depend on; more are refused until it comes.
	MaxHeld = 4096
	// MaxResponses is the most operator responses, approvals and rejections the fold keeps; the oldest go first.
	MaxResponses = 8192
	// MaxAllowed is the most entries of the operators' allow list.
	MaxAllowed = 4096
)

// Storage.
const (
	// MaxRangeEntries and MaxRangeBytes bound one answer of Range whatever was asked for. An answer ends at a sealed
	// entry where it can, so that the reader verifies one composite signature for the run.
	MaxRangeEntries = 4096
	MaxRangeBytes   = 4 << 20
	// IndexEvery is the number of records between two offsets held in memory: 8 bytes for 32 entries.
	IndexEvery = 32
	// SegmentBytes and SegmentAge are when a feed goes on in a new file: what is trimmed at once.
	SegmentBytes = 1 << 20
	SegmentAge   = 24 * time.Hour
	// MinRetention is the shortest time for which every peer keeps activity entries, whatever their bytes: what is
	// younger is never trimmed and never passed over on another's word, so that nobody can hide news behind a checkpoint.
	// With it the rate of a feed bounds its bytes: 1.3 GiB of the most hostile author.
	MinRetention = 24 * time.Hour
	// MaxOpenFeeds is the most feed files held open at once; others are opened when used.
	MaxOpenFeeds = 256
	// MaxPendingAppends is the most entries that wait for one fdatasync; an appender beyond waits its turn.
	MaxPendingAppends = 4096
	// MaxEvidence is the most proofs of equivocation kept on disk: one an author and chain.
	MaxEvidence = 1024
)

// Witnesses.
const (
	// WitnessFaults is f, the witnesses of one feed that may lie together: 2f+1 cosign, f+1 are needed, so that one
	// honest is among them and f may be away.
	WitnessFaults = 1
	// CheckpointEvery is how often a peer checkpoints its chains while they move; it grows with the swarm beyond
	// CheckpointPeers members, so that checkpoints cost no host more than about 1 KiB/s. CheckpointEntries are worth one
	// at once.
	CheckpointEvery   = 10 * time.Minute
	CheckpointPeers   = 50
	CheckpointEntries = 4096
	// WitnessSlack is how far down the ranking a cosignature counts.
	WitnessSlack = 8
	// MaxCosigners is the most cosignatures of one checkpoint that are kept: far more than are asked for.
	MaxCosigners = 16
	// MaxBase bounds the base of a trimmed feed: a checkpoint entry, 62 hashes and MaxCosigners cosignatures of 2.5 KiB.
	MaxBase = 64 << 10
)

// Keys at rest.
const (
	// MaxKeyFile bounds a key file before it is parsed: 96 bytes of seeds, and a header with what a TPM or a token sealed.
	MaxKeyFile = 4 << 10
	// MaxSealed bounds a wrapping key as a TPM or a token sealed it: of a TPM two structures of some 200 bytes, and the
	// values of at most 24 PCRs of 32 bytes.
	MaxSealed = 2 << 10
	// MaxQuote bounds a TPM's quote: key, statement, signature, and the same values.
	MaxQuote = 2 << 10
	// MaxAttestation bounds a quote with what shows whose it is: an inception and every rotation of the identity.
	MaxAttestation = MaxQuote + MaxInception + MaxRotations*(MaxRotation+8) + 8<<10
	// MinNonce and MaxNonce are the bytes of a verifier's nonce: nobody hits 16 by chance, and a TPM takes no more than 64.
	MinNonce = 16
	MaxNonce = 64
	// KDFMemory (KiB), KDFTime and KDFThreads are Argon2id's parameters for new files: RFC 9106's second choice
	// (64 MiB, t=3), one lane because a small host may have one core; about 0.15 s.
	KDFMemory  = 64 << 10
	KDFTime    = 3
	KDFThreads = 1
	// MinKDFMemory to MaxKDFTime bound what a file may ask for: neither a weakened file nor one that eats the host.
	MinKDFMemory  = 8 << 10
	MaxKDFMemory  = 1 << 20
	MaxKDFTime    = 16
	MaxKDFThreads = 8
	// MaxPassphrase is the longest passphrase, in bytes.
	MaxPassphrase = 1024
	// OpenKeys is how many expanded composite public keys (about 50 KiB each) the fold keeps ready.
	OpenKeys = 256
)

// Credentials.
const (
	// MaxCredentialLifetime is the longest a credential may be good for: a revocation that a partition holds up is over
	// then all the same.
	MaxCredentialLifetime = 24 * time.Hour
	// MaxDelegation is how often a credential may be passed on.
	MaxDelegation = 3
	// MaxCapabilities, MaxCapabilityPeers and MaxAction bound what one says: 64 hosts by name, or all.
	MaxCapabilities    = 16
	MaxCapabilityPeers = 64
	MaxAction          = 48
	// MaxDelegated is the most orders under credentials that the fold keeps; the oldest go first.
	MaxDelegated = 1024
	// MaxReleasers is the most authors of module releases that the fold keeps where they speak under a credential, and
	// MaxReleasesEach the most releases and withdrawals of one of them, the newest: of an operator it is MaxReleases. The
	// same bounds hold once more for deployments.
	MaxReleasers    = 64
	MaxReleasesEach = 64
	// MaxCredential bounds one, in bytes: signature 4627, and some 16 capabilities of 4 hosts each.
	MaxCredential = 8 << 10
)

// Anonymous reports.
const (
	// MaxRing is the most members one anonymous report hides its author among: each costs 64 bytes and four point
	// multiplications. MinRing is the fewest; among two, either knows the other.
	MaxRing = 64
	MinRing = 3
	// AnonymousEpoch is the time that AnonymousSlots count for: the most reports of one key in it, by the tag that each
	// slot gives only once.
	AnonymousEpoch = time.Hour
	AnonymousSlots = 4
	// MaxStanding is the longest time of membership that a report may claim, in hours.
	MaxStanding = 10 * 365 * 24
	// AnonymousGrain is what the time of an anonymous finding is cut to: an exact clock is a fingerprint.
	AnonymousGrain = time.Minute
	// MaxUnplaced is the most reports kept whose ring has keys that have not come.
	MaxUnplaced = 256
	// MaxAnonymousBody bounds what is reported, in bytes; with the largest ring it fits an activity entry.
	MaxAnonymousBody = 8 << 10
	// AnonymousWindow is how many epochs, the present one counted, a report may be old; its tag is remembered for as long.
	AnonymousWindow = 24
	// MaxSpent is the most tags remembered of one epoch: every slot of 4,096 members. More are refused, so that the memory
	// has an end: 64 bytes and the map's share each.
	MaxSpent = 4096 * AnonymousSlots
)
