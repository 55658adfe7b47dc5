// Package backup is the heart of kura: what a vcenter, a virtual machine, a
// group, a schedule, a slot, a job, an image and a restore are, and the rules
// that they obey.
//
// It imports the standard library only and does no I/O. State is reached
// through [Store], bytes through [Repository] and [VSphere], time through a
// now argument or a Now function.
//
//	request -> handler -> [Planner] -> [Store] -> SQL
//	job     -> worker  -> [VSphere] -> worker -> [Repository]
package backup
