// Package host is a libp2p host of two faces. Anybody who connects meets the open face, which answers the join and auth
// protocols and nothing else: no identify, no list of protocols, no peer exchange. A member that has proved itself on a
// connection meets the other, which has everything.
//
// The second face is a core/host.Host (Members), and pubsub and the DHT are given that one: its network has only proved
// connections, its events tell only of them, and its streams open over them alone. So a library that greets every new
// peer with all it knows (GossipSub's first packet lists the topics) has nobody to greet but members.
//
// Who is a member is not this package's question: Config.Connected decides, by calling Serve and Prove.
package host
