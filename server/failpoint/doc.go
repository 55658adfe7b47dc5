// Package failpoint marks the places at which a test may break the server.
//
// A program that users run carries none of them: without the build tag
// failpoints each function here is empty, and the compiler removes the call.
// With the tag a process that was started with the variable KURA_FAILPOINTS,
// the path of a folder, looks there each time it comes to a place:
//
//	FOLDER/NAME         what to do at the place of that name: "kill" or
//	                    "stop", and optionally at which time from now on,
//	                    as in "kill 3"; it is done once
//	FOLDER/without-NAME the safeguard of that name is left out
//	FOLDER/passed       a line for each place that was come to, in order
package failpoint

// Dir is the variable that names the folder.
const Dir = "KURA_FAILPOINTS"
