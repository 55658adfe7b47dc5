package lab

import (
	"encoding/binary"
	"math/rand/v2"
	"strings"
)

// runBlocks is the length of a run of one kind in generated content: 1 MiB.
const runBlocks = 16

// generator is the content of a disk as it was installed: a function of the
// seed, so that ten thousand disks need not be written anywhere.
type generator struct {
	seed uint64
	fill float64 // share of the runs that hold data
}

type kind int

const (
	hole kind = iota
	text
	noise
)

// mix is a 64-bit finalizer: equal inputs, equal outputs, no pattern between neighbours.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// kind tells what a block holds. The first run is always data: a boot sector.
func (g *generator) kind(block int64) kind {
	if g == nil {
		return hole
	}
	run := block / runBlocks
	h := mix(g.seed ^ mix(uint64(run)))
	switch share := float64(h>>11) / (1 << 53); {
	case run == 0:
		return text
	case share >= g.fill:
		return hole
	case h&3 == 0:
		return noise
	default:
		return text
	}
}

// block fills b, a whole block, with its generated content.
func (g *generator) block(n int64, b []byte) {
	switch seed := mix(g.seed + uint64(n)*2 + 1); g.kind(n) {
	case hole:
		clear(b)
	case noise:
		fillNoise(seed, b)
	case text:
		fillText(seed, b)
	}
}

// allocated counts the blocks with content of a disk of so many blocks.
func (g *generator) allocated(blocks int64) int64 {
	var n int64
	for b := int64(0); b < blocks; b += runBlocks {
		if g.kind(b) != hole {
			n += min(runBlocks, blocks-b)
		}
	}
	return n
}

func fillNoise(seed uint64, b []byte) {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	// ChaCha8.Read never fails.
	_, _ = rand.NewChaCha8(key).Read(b)
}

// fillText writes words, which compress about as well as programs and logs do.
func fillText(seed uint64, b []byte) {
	r := rand.NewPCG(seed, 1)
	for n := 0; n < len(b); {
		for x := r.Uint64(); x != 0 && n < len(b); x >>= 8 {
			n += copy(b[n:], words[x&0xff])
		}
	}
}

// words are 256 made-up words, the same in every build.
var words = func() (w [256]string) {
	syllables := strings.Fields("ka ra mo ti su no ki ha re yo nu shi to ma e ru")
	for i := range w {
		w[i] = syllables[i&15] + syllables[i>>4] + syllables[(i*7)&15][:1] + " "
	}
	return w
}()
