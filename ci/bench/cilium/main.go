// The driver of cilium/ebpf. See harness/src/work.rs for what a driver does.
package main

import (
	"io"
	"log"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// The marks are to come from the thread that is traced.
func init() {
	runtime.LockOSThread()
}

func mark(number uintptr) {
	syscall.RawSyscall(100000+number, 0, 0, 0)
}

func attach(program *ebpf.Program, multi bool, functions []string, links []io.Closer) error {
	if multi {
		made, err := link.KprobeMulti(program, link.KprobeMultiOptions{Symbols: functions})
		links[0] = made
		return err
	}
	for at, function := range functions {
		made, err := link.Kprobe(function, program, nil)
		if err != nil {
			return err
		}
		links[at] = made
	}
	return nil
}

// Loads all programs of an object.
func loadObject() error {
	mark(0)
	mark(0)
	loaded, err := ebpf.LoadCollection("object.o")
	if err == nil {
		mark(1)
		loaded.Close()
	}
	return err
}

func main() {
	if len(os.Args) < 5 {
		log.Fatal("usage: cilium each|multi|object 0|1 TIMES FUNCTION...")
	}
	if os.Args[1] == "object" {
		if err := loadObject(); err != nil {
			log.Fatal(err)
		}
		return
	}
	multi := os.Args[1] == "multi"
	number, _ := strconv.Atoi(os.Args[2])
	times, _ := strconv.Atoi(os.Args[3])
	functions := os.Args[4:]
	links := make([]io.Closer, len(functions))
	spec := ebpf.ProgramSpec{
		Type:    ebpf.Kprobe,
		License: "GPL",
		Instructions: asm.Instructions{
			asm.Mov.Imm(asm.R0, int32(number)),
			asm.Return(),
		},
	}
	if multi {
		spec.AttachType = ebpf.AttachTraceKprobeMulti
		links = links[:1]
	}
	mark(0)
	mark(0)
	program, err := ebpf.NewProgram(&spec)
	if err != nil {
		log.Fatal(err)
	}
	mark(1)
	for ; times > 0; times-- {
		if err := attach(program, multi, functions, links); err != nil {
			log.Fatal(err)
		}
		mark(2)
		for _, made := range links {
			if err := made.Close(); err != nil {
				log.Fatal(err)
			}
		}
		mark(3)
	}
}
