# Real mode: addressing, stack, interrupts, string instructions, unreal mode, A20.
    .include "frame.inc"
# Runs a branch with 1 in EBX's upper half and on the stack; prints the word below SP where an exception pushes IP.
.macro wide bytes:vararg
    mov esp, 0xE000
    mov dword ptr ss:[0xE000], 0x12000
    mov word ptr ss:[0xDFFA], 0
    try 9f
    xor ax, ax
    .byte \bytes
9:  movzx eax, word ptr ss:[0xDFFA]
    hex eax
.endm
    start16
    call set_vectors16

    case "addressing wraps at 64 KiB"
    mov bx, 0xFFF0
    mov si, 0x1510
    mov word ptr [0x1500], 0x1234
    mov ax, [bx+si]
    hex eax
    mov bp, 0xFFFF
    mov di, 0x1501
    mov word ptr ss:[0x1500], 0x5678
    movzx eax, word ptr [bp+di]
    hex eax

    case "a word at FFFF is outside the segment"
    try 1f
    mov ax, [0xFFFF]
    say "no fault "
1:
    try 1f
    mov ax, ss:[0xFFFF]
    say "no fault "
1:
    case "32-bit offsets are checked"
    try 1f
    mov ebx, 0x10000
    mov al, [ebx]
    say "no fault "
1:
    case "a push at SP 1 and 0"
    mov bx, sp
    try 1f
    xor sp, sp
    push 0x1234
    mov cx, sp
    mov sp, bx
    movzx ecx, cx
    hex ecx
    mov ax, [0xFFFE]
    movzx eax, ax
    hex eax
1:
    case "push sp and pop sp"
    mov bx, sp
    push sp
    pop ax
    sub ax, bx
    movzx eax, ax
    hex eax
    mov word ptr [0xE000], 0x4321
    mov sp, 0xE000
    pop sp
    movzx eax, sp
    mov sp, bx
    hex eax

    case "pusha popa"
    mov eax, 0x11111111
    mov ecx, 0x22222222
    mov edx, 0x33333333
    mov ebx, 0x44444444
    mov ebp, 0x55555555
    mov esi, 0x66666666
    mov edi, 0x77777777
    pusha
    mov eax, [esp]
    hex eax
    mov eax, [esp+4]
    hex eax
    mov eax, [esp+12]
    hex eax
    xor ax, ax
    xor di, di
    popa
    hex eax
    hex edi
    pushad
    xor eax, eax
    popad
    hex eax

    case "enter and leave"
    mov ebp, 0xABCD8000
    mov bx, sp
    enter 0x10, 0
    mov cx, bx
    sub cx, sp
    movzx ecx, cx
    hex ecx
    leave
    hex ebp
    mov bp, 0xD010
    mov word ptr [0xD00E], 0x1111
    mov word ptr [0xD00C], 0x2222
    enter 4, 3
    mov cx, bx
    sub cx, sp
    movzx ecx, cx
    hex ecx
    mov ax, [bp-2]
    movzx eax, ax
    hex eax
    mov ax, [bp-4]
    movzx eax, ax
    hex eax
    leave
    movzx ebp, bp
    hex ebp

    case "interrupts and returns"
    mov word ptr [0x40*4], offset int40
    mov word ptr [0x40*4+2], 0
    sti
    stc
    int 0x40
    pushf
    pop ax
    and ax, 0xF01
    movzx eax, ax
    hex eax
    cli
    mov al, 0x7F
    add al, 1
    try 1f
    into
    say "no trap "
1:
    xor al, al
    into
    say "passed "
    try 1f
    int3
1:
    case "divide errors"
    try 1f
    mov ax, 0x100
    mov bl, 1
    div bl
1:  try 1f
    xor dx, dx
    xor cx, cx
    div cx
1:  try 1f
    mov ax, 0x8000
    mov dx, 0xFFFF
    mov cx, -1
    idiv cx
1:  try 1f
    aam 0
1:
    case "bound"
    mov word ptr [0xD000], -5
    mov word ptr [0xD002], 5
    mov ax, -5
    try 1f
    bound ax, [0xD000]
    say "in "
1:  mov ax, 6
    try 1f
    bound ax, [0xD000]
    say "in "
1:
    case "undefined"
    try 1f
    ud2
1:  try 1f
    .byte 0x0F, 0x00, 0xC0      # sldt ax: not in real mode
1:  try 1f
    .byte 0x63, 0xC8            # arpl
1:  try 1f
    .byte 0xF0, 0x90            # lock nop
1:  try 1f
    .byte 0xF0, 0x01, 0xC0      # lock add ax,ax
1:  try 1f
    .byte 0x0F, 0xFF, 0xC0
1:  try 1f
    .byte 0x8E, 0xC8            # mov cs,ax
1:  try 1f
    .byte 0x8E, 0xF8            # mov ?7,ax
1:  try 1f
    .byte 0xC4, 0xC0            # les ax,ax
1:  try 1f
    .byte 0xFF, 0xF8            # group 5 /7
1:
    case "far jumps, calls and returns"
    push cs
    push offset 1f
    retf
1:  say "retf "
    .byte 0x9A
    .word far16, 0
    mov dword ptr [0xD000], offset far16
    call dword ptr [0xD000]
    pushw cs
    call far16
    mov bx, sp
    push 0x7777
    push cs
    push offset 1f
    retf 2
1:  sub bx, sp
    movzx ebx, bx
    hex ebx
    push eax
    pushfd
    pushd 0
    pushd offset 1f
    iretd
1:  say "iretd "
    pop eax

    case "string instructions"
    mov ax, DATA/16
    mov es, ax
    mov ds, ax
    xor eax, eax
    xor di, di
    mov cx, 0x100
    rep stosd
    mov dword ptr [0], 0x03020100
    mov dword ptr [4], 0x07060504
    xor si, si
    mov di, 1
    mov cx, 16
    rep movsb
    mov eax, [8]
    hex eax
    hex ecx
    movzx esi, si
    hex esi
    std
    mov dword ptr [0], 0x03020100
    mov si, 3
    mov di, 5
    mov cx, 4
    rep movsb
    cld
    mov eax, [2]
    hex eax
    movzx edi, di
    hex edi
    mov di, 0xFFFE
    mov al, 0x5A
    mov cx, 4
    rep stosb
    movzx edi, di
    hex edi
    mov eax, [0]
    hex eax
    mov dword ptr [0x100], 0x64636261
    mov dword ptr [0x104], 0x68676665
    mov di, 0x100
    mov cx, 20
    mov al, 'e'
    repne scasb
    flags
    movzx ecx, cx
    hex ecx
    mov si, 0x100
    mov di, 0x200
    mov dword ptr [0x200], 0x64646261
    mov cx, 8
    repe cmpsb
    flags
    movzx ecx, cx
    hex ecx
    xor cx, cx
    stc
    repe cmpsb
    flags
    mov si, 0x104
    lodsw
    movzx eax, ax
    hex eax
    mov ecx, 0x10002
    mov si, 0x100
    rep lodsb
    hex ecx
    mov edi, 0x300
    mov ecx, 3
    mov al, 1
    .byte 0x67
    rep stosb
    hex edi
    hex ecx
    xor ax, ax
    mov ds, ax
    mov es, ax

    case "a string instruction that runs out of its segment stops where it was"
    try 1f
    mov eax, 0x12345678
    mov di, 0xFFF7
    mov cx, 5
    rep stosd
1:  movzx edi, di
    hex edi
    movzx ecx, cx
    hex ecx

    case "loops"
    mov ecx, 0x10003
    xor ax, ax
1:  inc ax
    loop 1b
    hex ecx
    movzx eax, ax
    hex eax
    mov ecx, 2
1:  .byte 0x67
    loop 1b
    hex ecx
    mov cx, 5
    mov ax, 3
1:  dec ax
    loopne 1b
    flags 0x40
    movzx ecx, cx
    hex ecx
    mov ecx, 0x10000
    jcxz 1f
    say "not "
1:  jecxz 1f
    say "right "
1:
    case "decimal"
    mov ax, 0x0199
    add al, 0x28
    daa
    hex eax
    flags 0xD5
    mov al, 0x21
    sub al, 0x35
    das
    movzx eax, al
    hex eax
    flags 0xD5
    mov ax, 0x0205
    add al, 9
    aaa
    movzx eax, ax
    hex eax
    mov ax, 0x0205
    sub al, 9
    aas
    movzx eax, ax
    hex eax
    mov ax, 0x4F
    aam
    movzx eax, ax
    hex eax
    flags 0xC4
    aad
    movzx eax, ax
    hex eax
    stc
    .byte 0xD6
    movzx eax, al
    hex eax
    mov bx, 0xD000
    mov byte ptr [0xD0FF], 0x99
    mov al, 0xFF
    xlat
    movzx eax, al
    hex eax

    case "segment loads"
    mov dword ptr [0xD000], 0x2345BEEF
    les ax, [0xD000]
    movzx eax, ax
    hex eax
    mov eax, es
    hex eax
    lfs eax, [0xD000]
    mov eax, fs
    hex eax
    push 0x1234
    pop gs
    mov eax, gs
    hex eax
    push gs
    pop eax
    sub esp, 2
    xor ax, ax
    mov es, ax

    case "unreal mode"
    lgdt [gdtr]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    mov bx, SEL_DATA
    mov ds, bx
    and al, 0xFE
    mov cr0, eax
    xor ax, ax
    mov ds, ax
    mov ebx, 0x300000
    mov dword ptr [ebx], 0xCAFEF00D
    mov eax, [ebx]
    hex eax
    try 1f
    mov eax, es:[ebx]
1:
    case "the a20 gate"
    mov ebx, 0x100500
    mov dword ptr [0x500], 0x11111111
    mov dword ptr [ebx], 0x22222222
    mov eax, [0x500]
    hex eax
    in al, 0x92
    and al, 0xFD
    out 0x92, al
    mov eax, [ebx]
    hex eax
    in al, 0x92
    or al, 2
    out 0x92, al
    mov eax, [ebx]
    hex eax

    case "flags that can be set"
    pushfd
    pop eax
    mov ebx, eax
    xor eax, 0x277000
    push eax
    popfd
    pushfd
    pop eax
    xor eax, ebx
    push ebx
    popfd
    hex eax
    lahf
    sahf
    smsw ax
    movzx eax, ax
    hex eax

    case "code runs around the end of its segment"
    mov ax, DATA/16
    mov es, ax
    mov word ptr es:[0xFFFE], 0x40B0   # mov al,0x40 ends exactly at the limit
    mov byte ptr es:[0], 0xCB          # would be next, if IP wrapped
    try 1f
    mov word ptr es:[0xFFFC], 0x9090
    .byte 0xEA
    .word 0xFFFC, DATA/16
1:
    case "branches with 32-bit operands stay in the segment"
    mov ebx, offset 1f
    jmp ebx
1:  mov ebx, 0x12000
    wide 0x66, 0xFF, 0xE3               # jmp ebx
    wide 0x66, 0xC3                     # ret
    wide 0x66, 0xC2, 4, 0               # ret 4
    wide 0x66, 0xFF, 0xD3               # call ebx
    mov dword ptr [0xD000], ebx
    mov bx, 0xD000
    wide 0x66, 0xFF, 0x17               # call [bx]
    wide 0x66, 0xE8, 0, 0x20, 1, 0      # call
    wide 0x66, 0x0F, 0x84, 0, 0x20, 1, 0 # je
    wide 0x66, 0x0F, 0x85, 0, 0x20, 1, 0 # jne
    mov sp, STACK
    .byte 0x66, 0xE8
    .long where32-.-4
    hex ebx
    finish

where32:
    mov ebx, ss:[esp]
    sub ebx, offset where32
    .byte 0x66, 0xC3

int40:
    push bp
    mov bp, sp
    mov ax, [bp+6]
    and ax, 0xF01
    movzx eax, ax
    hex eax
    pushf
    pop ax
    and ax, 0x300
    movzx eax, ax
    hex eax
    pop bp
    iret

far16:
    push bp
    mov bp, sp
    movzx eax, word ptr [bp+4]
    hex eax
    pop bp
    retf
