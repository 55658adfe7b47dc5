//go:build failpoints && linux

package server_test

import (
	"math/rand/v2"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/repository"
)

// storageFaults is how many faults a seed gives to a storage.
const storageFaults = 4

// spoilStorage makes the storage at a place behave badly in ways from which
// nothing may be lost, for this process's life.
func spoilStorage(place string, seed uint64) {
	if seed == 0 {
		return
	}
	chance := rand.New(rand.NewPCG(seed, 2))
	kinds := []repository.FaultKind{repository.FaultError, repository.FaultDelay, repository.FaultTear, repository.FaultFull, repository.FaultOther}
	faults := repository.FaultsAt(place)
	for range storageFaults {
		faults.Arm(repository.Fault{Kind: kinds[chance.IntN(len(kinds))], After: chance.IntN(200), Times: 1 + chance.IntN(3), Room: chance.Int64N(256 << 10),
			Wait: time.Duration(chance.IntN(500)) * time.Millisecond})
	}
}
