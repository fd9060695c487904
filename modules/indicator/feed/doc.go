// Package feed reads files of indicators into a builder: STIX 2.x bundles and TAXII envelopes, MISP events and search
// results, plain lists, hosts files and tables, each gzip-compressed or not. What a file is, is told by how it begins.
//
// A feed is a stranger's text. Its bytes are bounded before and after decompression, and so is each line and each object;
// it is read as it comes, never held whole. Whatever is in it is counted: taken, had already, ended, not applicable with
// the reason, or rejected with the reason.
package feed
