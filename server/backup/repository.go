package backup

import "time"

// RepositoryRecord is a repository as the installation knows it.
type RepositoryRecord struct {
	Meta
	Name        string
	Kind        string            // "filesystem"
	Settings    map[string]string // by kind; filesystem: path
	Password    Secret            // random, made with the repository
	Compression string            // s2 (default), zstd-fastest or none
	VerifyDays  int               // default 30
	Default     bool              // taken by schedules that name none
	UniqueID    string            // the repository's own id
	CheckedAt   time.Time
	CheckError  string
	StoredBytes int64 // packed, as of CheckedAt
	ImageCount  int
	FreeBytes   int64 // of the file system, as of CheckedAt; -1 = not known
	OwnedBy     string
	ReadOnly    bool
}
