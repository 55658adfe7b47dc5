package auth

import "slices"

// operations says, for each operation of the contract by its operationId, which
// roles may call it. What is not here nobody may call.
var operations = map[string][]Role{
	"getServer":    readers,
	"confirmClock": operators,

	"listVCenters":  readers,
	"getVCenter":    readers,
	"createVCenter": operators,
	"updateVCenter": operators,
	"deleteVCenter": operators,
	"rebindVCenter": operators,
	"syncVCenter":   {Backup, Restorer, Operator},

	"diagnoseVCenter": operators, // it shows what the account may, and writes to repositories

	"listVirtualMachines":  readers,
	"listProtection":       readers,
	"getVirtualMachine":    readers,
	"backupVirtualMachine": backers,

	"listBackupGroups":       readers,
	"getBackupGroup":         readers,
	"listBackupGroupChanges": readers,
	"listBackupGroupMembers": readers,
	"createBackupGroup":      backers,
	"updateBackupGroup":      backers,
	"backupGroup":            backers,
	"deleteBackupGroup":      operators,

	"listBackupSchedules":  readers,
	"getBackupSchedule":    readers,
	"listOccurrences":      readers,
	"exportOccurrences":    readers,
	"listTimeslots":        readers,
	"checkBackupSchedule":  readers, // books nothing, so that a plan needs no more than a viewer
	"createBackupSchedule": backers,
	"updateBackupSchedule": backers,
	"moveBackupSchedules":  backers,
	"runBackupSchedule":    backers,
	"deleteBackupSchedule": operators,

	"listRuns": readers,
	"getRun":   readers,

	"listJobs":        readers,
	"getJob":          readers,
	"streamJobEvents": readers,
	"cancelJob":       {Backup, Restorer, Operator}, // see MayCancel

	"listBackupImages":  readers,
	"getBackupImage":    readers,
	"listExpiredImages": readers,
	"verifyBackupImage": {Backup, Restorer, Operator},
	"deleteBackupImage": operators,
	"extendBackupImage": operators,
	"listImageHolds":    readers,
	"holdBackupImage":   backers,
	"changeImageHold":   operators,
	"releaseImageHold":  operators,
	"listImageCopies":   readers,
	"copyBackupImage":   backers,

	"listRestores":  readers,
	"getRestore":    readers,
	"checkRestore":  readers, // starts nothing
	"createRestore": restorers,
	"deleteRestore": restorers, // forgets the record, touches no VM and no image

	"listRepositories":         readers,
	"getRepository":            readers,
	"createRepository":         operators,
	"maintainRepository":       operators,
	"takeOverRepository":       operators,
	"updateRepository":         operators,
	"deleteRepository":         operators,
	"changeRepositoryPassword": operators,
	"rebuildCatalogue":         operators,
	"copyDatabase":             operators,
	"adoptDatabase":            operators,
	"recoverySheet":            operators,

	"getUsage":    readers,
	"exportUsage": readers,

	"listTokens":  operators,
	"createToken": operators,
	"revokeToken": operators,
}

var (
	readers   = []Role{Viewer, Backup, Restorer, Operator}
	backers   = []Role{Backup, Operator}
	restorers = []Role{Restorer, Operator}
	operators = []Role{Operator}
)

// May says whether r may call the operation.
func (r Role) May(operation string) bool { return slices.Contains(operations[operation], r) }

// MayCancel says whether r may cancel jobs of that kind: each role what it may
// start.
func (r Role) MayCancel(kind string) bool {
	switch r {
	case Operator:
		return true
	case Backup:
		return kind == "backup" || kind == "sync" || kind == "copy"
	case Restorer:
		return kind == "restore" || kind == "sync"
	}
	return false
}

// Valid says whether r is a role.
func (r Role) Valid() bool { return slices.Contains(Roles(), r) }
