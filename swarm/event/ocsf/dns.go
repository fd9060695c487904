package ocsf

import (
	"strconv"
	"strings"
)

// dnsTypes are the record types that are written by name (RFC 1035, 3596, 6698, 8659, 9460); others are TYPE and a number (RFC 3597).
var dnsTypes = [...]struct {
	number uint16
	name   string
}{{1, "A"}, {28, "AAAA"}, {5, "CNAME"}, {12, "PTR"}, {15, "MX"}, {2, "NS"}, {6, "SOA"}, {16, "TXT"}, {33, "SRV"}, {65, "HTTPS"}, {64, "SVCB"},
	{257, "CAA"}, {255, "ANY"}, {10, "NULL"}, {13, "HINFO"}, {35, "NAPTR"}, {43, "DS"}, {46, "RRSIG"}, {48, "DNSKEY"}, {52, "TLSA"}, {251, "IXFR"}, {252, "AXFR"}}

// DNSType is the name of a record type: "A", or "TYPE" and its number where it has none here; "" for 0.
func DNSType(n uint16) string {
	if n == 0 {
		return ""
	}
	for _, t := range dnsTypes {
		if t.number == n {
			return t.name
		}
	}
	return "TYPE" + strconv.Itoa(int(n))
}

func dnsNumber(name string) uint16 {
	for _, t := range dnsTypes {
		if t.name == name {
			return t.number
		}
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(name, "TYPE"), 10, 16)
	if err != nil {
		return 0
	}
	return uint16(n)
}
