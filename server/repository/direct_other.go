//go:build !linux

package repository

// directFlag is empty where files cannot be opened past the page cache.
const directFlag = 0
