package nbd

import "encoding/binary"

// What the protocol's description names NBDMAGIC, IHAVEOPT and so on.
const (
	magicServer     = 0x4e42444d41474943
	magicOption     = 0x49484156454f5054
	magicOptionRep  = 0x0003e889045565a9
	magicRequest    = 0x25609513
	magicSimple     = 0x67446698
	magicStructured = 0x668e33ef
)

// Of the handshake.
const (
	serverFixed    = 1 << 0
	serverNoZeroes = 1 << 1

	optGo             = 7
	optStructured     = 8
	optSetMetaContext = 10

	repAck         = 1
	repInfo        = 3
	repMetaContext = 4
	repError       = 1 << 31 // set in every refusal
	repUnsupported = repError + 1
	repTLSRequired = repError + 5
	repUnknown     = repError + 6

	infoExport    = 0
	infoBlockSize = 3
)

// Of the export.
const (
	flagPresent     = 1 << 0
	flagReadOnly    = 1 << 1
	flagFlush       = 1 << 2
	flagFUA         = 1 << 3
	flagWriteZeroes = 1 << 6
)

// Of requests.
const (
	cmdRead        = 0
	cmdWrite       = 1
	cmdDisconnect  = 2
	cmdFlush       = 3
	cmdWriteZeroes = 6
	cmdBlockStatus = 7

	requestFUA = 1 << 0
)

// Of replies.
const (
	replyDone = 1 << 0 // the last chunk of a reply

	chunkNone        = 0
	chunkData        = 1
	chunkHole        = 2
	chunkStatus      = 5
	chunkError       = 1<<15 + 1
	chunkErrorOffset = 1<<15 + 2
)

// Of what base:allocation tells.
const (
	stateHole = 1 << 0
	stateZero = 1 << 1
)

const allocation = "base:allocation"

// Limits of what is believed of a server.
const (
	maxOption  = 64 << 10 // bytes of a reply to an option
	maxAnswers = 1 << 10  // replies to one option
	maxStatus  = 32 << 20 // bytes of a chunk about extents
	maxMessage = 64 << 10 // bytes of an error
	maxBlock   = 32 << 20 // bytes of data in a request, where the server does not say
)

// header makes a request's head.
func header(command, flags uint16, cookie, off uint64, n uint32) []byte {
	b := make([]byte, 0, 28)
	b = binary.BigEndian.AppendUint32(b, magicRequest)
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint16(b, command)
	b = binary.BigEndian.AppendUint64(b, cookie)
	b = binary.BigEndian.AppendUint64(b, off)
	return binary.BigEndian.AppendUint32(b, n)
}
