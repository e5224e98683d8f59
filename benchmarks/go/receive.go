// Go's receiver in the live scenarios: golang.org/x/net/ipv4, ReadBatch.
//
//	receive FD SIZE BATCH TIMED LIMIT
//
// FD is a bound and joined socket. TIMED 1: keep how long each datagram was on its way. It ends after LIMIT seconds
// whatever happens. Says "ready"; "stop" ends it, once the queue is empty; it says in JSON what it counted. ReadBatch
// makes the source of each datagram whether one looks at it or not.
package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/net/ipv4"
)

const (
	clockMonotonic = 1
	stampAt        = 48 // feed.h
)

type result struct {
	Received int     `json:"received"`
	User     float64 `json:"user"`
	System   float64 `json:"system"`
	Delays   []int64 `json:"delays"`
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// What Go's own clock is to be counted from: it is CLOCK_MONOTONIC, too, but does not tell where that stands.
func clock() (time.Time, int64) {
	var at syscall.Timespec
	best := time.Hour
	var origin time.Time
	var ns int64
	for i := 0; i < 100; i++ {
		before := time.Now()
		syscall.Syscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&at)), 0)
		after := time.Now()
		if took := after.Sub(before); took < best {
			best, origin, ns = took, before.Add(took/2), at.Nano()
		}
	}
	return origin, ns
}

func used() syscall.Rusage {
	var usage syscall.Rusage
	fail(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return usage
}

func seconds(before, after syscall.Timeval) float64 {
	return float64(after.Nano()-before.Nano()) * 1e-9
}

func main() {
	var numbers [5]int
	for i := range numbers {
		number, err := strconv.Atoi(os.Args[i+1])
		fail(err)
		numbers[i] = number
	}
	fd, size, batch, timed, limit := numbers[0], numbers[1], numbers[2], numbers[3] == 1, numbers[4]
	time.AfterFunc(time.Duration(limit)*time.Second, func() { os.Exit(14) })

	file := os.NewFile(uintptr(fd), "feed")
	conn, err := net.FilePacketConn(file)
	fail(err)
	fail(file.Close())
	packets := ipv4.NewPacketConn(conn)
	messages := make([]ipv4.Message, batch)
	for i := range messages {
		messages[i].Buffers = [][]byte{make([]byte, size)}
	}
	origin, ns := clock()
	go func() {
		bufio.NewReader(os.Stdin).ReadString('\n')
		conn.SetReadDeadline(time.Now())
	}()

	before := used()
	fmt.Println("ready")
	found := result{Delays: []int64{}}
	for {
		n, err := packets.ReadBatch(messages, 0)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		fail(err)
		if timed {
			at := ns + int64(time.Since(origin))
			for i := 0; i < n; i++ {
				sent := int64(binary.LittleEndian.Uint64(messages[i].Buffers[0][stampAt:]))
				found.Delays = append(found.Delays, at-sent)
			}
		}
		found.Received += n
	}
	after := used()
	found.User, found.System = seconds(before.Utime, after.Utime), seconds(before.Stime, after.Stime)
	fail(json.NewEncoder(os.Stdout).Encode(found))
}
