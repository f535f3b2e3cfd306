package scrapercsr

import (
	"fmt"
	"slices"
	"strings"
)

// The pin is a regular expression that spec.request of an honest request matches,
// in the form in which an admission policy sees it: base64 of PEM, which is base64 of
// DER. Of the DER everything from the version to the key's curve is the same in all
// requests with one common name; only the lengths before it and the point after it
// differ. Three bytes are four characters of base64, and the PEM header is of 36
// bytes, so fixed bytes stay fixed characters through both encodings. A character
// that also depends on a byte that varies becomes a set.
//
// Sets are taken character by character, so they admit a few bytes more than those
// that occur, next to the lengths. Those are tags, which a request must have right
// to be parsed at all: the API server parses every request that is created.

// byteSet holds the values that one byte may have. Nil means any.
type byteSet []byte

const base64Alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

const pemLine = 64 // characters in a line of PEM

// beginning matches the start of an encoded request as far as it is fixed.
func beginning(commonName string) (string, error) {
	subject, err := subjectOf(commonName)
	if err != nil {
		return "", fmt.Errorf("encode common name %q: %w", commonName, err)
	}
	if len(subject) > 129 {
		return "", fmt.Errorf("common name %q: want at most 116 bytes, so that its lengths take one byte each", commonName)
	}
	fixed := slices.Concat([]byte{0x02, 0x01, 0x00}, subject, keyPrefix())
	// SEQUENCE and length, twice: of the request, and of its signed part, which is
	// of 128 bytes or more with any name.
	lengths := [][]byteSet{
		{{0x30}, {0x82}, nil, nil, {0x30}, {0x81}, nil},
		{{0x30}, {0x82}, nil, nil, {0x30}, {0x82}, nil, nil},
	}
	if len(commonName) < shortName {
		lengths = append(lengths, []byteSet{{0x30}, {0x81}, nil, {0x30}, {0x81}, nil})
	}
	var alternatives []string
	for _, head := range lengths {
		alternatives = append(alternatives, encodedPattern(slices.Concat(head, exactly(fixed))))
	}
	return "^(" + strings.Join(alternatives, "|") + ")", nil
}

// shortName is from where on a request is certainly of 256 bytes or more: it has 228
// besides common name and node name, and signatures that are much shorter than
// usual do not happen.
const shortName = 40

// keyPrefix is the encoding of a P-256 key up to its point, whose first byte says
// that it is not compressed.
func keyPrefix() []byte {
	const algorithm = "\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00\x04"
	return []byte(algorithm)
}

// encodedPattern is the pattern of PEM's base64 of a request that begins with the
// given bytes.
func encodedPattern(der []byteSet) string {
	text := exactly([]byte(pemHeader))
	for i, characters := range base64Of(der) {
		if i > 0 && i%pemLine == 0 {
			text = append(text, byteSet{'\n'})
		}
		text = append(text, characters)
	}
	return pattern(base64Of(text))
}

// ending matches the end of an encoded request: the PEM footer, wherever it stands
// in its group of three bytes.
func ending() string {
	footer := exactly([]byte("\n" + pemFooter))
	var alternatives []string
	for before := range 3 {
		text := append(make([]byteSet, before), footer...)
		padding := (3 - len(text)%3) % 3
		whole := base64Of(append(text, slices.Repeat([]byteSet{{0}}, padding)...))
		for i := range padding {
			whole[len(whole)-1-i] = byteSet{'='}
		}
		alternatives = append(alternatives, pattern(whole))
	}
	return "(" + strings.Join(alternatives, "|") + ")$"
}

// exactly is one set of one value for each byte.
func exactly(data []byte) []byteSet {
	var sets []byteSet
	for _, b := range data {
		sets = append(sets, byteSet{b})
	}
	return sets
}

// base64Of returns the characters that encode the bytes, as far as they fill groups
// of three.
func base64Of(data []byteSet) []byteSet {
	any256 := byteSet{}
	for value := range 256 {
		any256 = append(any256, byte(value))
	}
	var out []byteSet
	for group := range slices.Chunk(data, 3) {
		if len(group) < 3 {
			break
		}
		a, b, c := orAny(group[0], any256), orAny(group[1], any256), orAny(group[2], any256)
		out = append(out,
			combine(a, byteSet{0}, func(x, _ byte) byte { return x >> 2 }),
			combine(a, b, func(x, y byte) byte { return x&3<<4 | y>>4 }),
			combine(b, c, func(x, y byte) byte { return x&15<<2 | y>>6 }),
			combine(c, byteSet{0}, func(x, _ byte) byte { return x & 63 }))
	}
	return out
}

func orAny(set, everything byteSet) byteSet {
	if set == nil {
		return everything
	}
	return set
}

// combine returns the characters for every pair of values, sorted.
func combine(a, b byteSet, index func(x, y byte) byte) byteSet {
	var out byteSet
	for _, x := range a {
		for _, y := range b {
			out = append(out, base64Alphabet[index(x, y)])
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// pattern writes sets of base64's characters as a regular expression.
func pattern(sets []byteSet) string {
	var b strings.Builder
	for _, set := range sets {
		switch {
		case len(set) == len(base64Alphabet):
			b.WriteByte('.')
		case len(set) == 1 && set[0] != '+' && set[0] != '/':
			b.WriteByte(set[0])
		default:
			b.WriteString("[" + string(set) + "]")
		}
	}
	return b.String()
}
