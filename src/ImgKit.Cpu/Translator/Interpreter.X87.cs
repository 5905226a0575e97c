using System.Runtime.CompilerServices;
using Iced.Intel;
using ImgKit.Cpu.Architecture;

namespace ImgKit.Cpu.Translator;

/// <summary>x87 state in memory: environments (FNSTENV, FLDENV), whole states (FNSAVE, FRSTOR), and the pointers in FXSAVE and XSAVE areas.
/// Source: Intel SDM volume 1, 8.1.10 and figures 8-9 to 8-12; 10.5.</summary>
internal sealed unsafe partial class Interpreter
{
    private const int RegistersField = 32, RegisterSize = 10;
    private const ushort Masks = 0x3F, Summary = 0x8080, InitialControl = 0x37F;

    private ref ushort ControlWord => ref *(ushort*)_c->XsaveArea;

    private ref ushort StatusWord => ref *(ushort*)(_c->XsaveArea + 2);

    /// <summary>A bit for each register by its number, set where it is not empty.</summary>
    private ref byte FullRegisters => ref _c->XsaveArea[4];

    private ref ushort LastOpcode => ref *(ushort*)(_c->XsaveArea + 6);

    private ref ulong InstructionPointer => ref *(ulong*)(_c->XsaveArea + 8);

    private ref ulong OperandPointer => ref *(ulong*)(_c->XsaveArea + 16);

    private bool ExecuteX87()
    {
        switch (_i.Mnemonic)
        {
            case Mnemonic.Fnstenv:
                StoreEnvironment(false);
                ControlWord |= Masks;
                break;
            case Mnemonic.Fnsave:
                StoreEnvironment(true);
                ControlWord = InitialControl;
                SetStatus(0);
                FullRegisters = 0;
                LastOpcode = 0;
                InstructionPointer = OperandPointer = 0;
                cpu.X87Selectors = default;
                break;
            case Mnemonic.Fldenv or Mnemonic.Frstor:
                Materialise();
                if (!cpu.PassNumericError())
                {
                    Faulted = true;
                    return true;
                }
                LoadEnvironment(_i.Mnemonic == Mnemonic.Frstor);
                break;
            default:
                return false;
        }
        // The summary follows the exceptions that are not masked.
        bool pending = (StatusWord & ~ControlWord & Masks) != 0;
        StatusWord = (ushort)(StatusWord & ~Summary | (pending ? Summary : 0));
        return true;
    }

    /// <summary>The area has the registers from the top of the stack on: they move when the top does.</summary>
    private void SetStatus(ushort value)
    {
        int turn = (value >> 11) - (StatusWord >> 11) & 7;
        byte* registers = _c->XsaveArea + RegistersField, old = stackalloc byte[128];
        Unsafe.CopyBlockUnaligned(old, registers, 128);
        for (int i = 0; i < 8; i++)
            Unsafe.CopyBlockUnaligned(registers + 16 * i, old + 16 * (i + turn & 7), 16);
        StatusWord = value;
    }

    private bool IsSmallImage => _i.Code is Code.Fnstenv_m14byte or Code.Fldenv_m14byte or Code.Fnsave_m94byte or Code.Frstor_m94byte;

    private void StoreEnvironment(bool registers)
    {
        Materialise();
        bool small = IsSmallImage, paragraphs = Mode.IsParagraph(_c);
        byte* image = stackalloc byte[108];
        int size = small ? 14 : 28, field = small ? 2 : 4;
        Unsafe.InitBlock(image, 0xFF, 28);
        Put(0, ControlWord);
        Put(1, StatusWord);
        Put(2, FullTags());
        var (code, data) = InstructionPointer == 0 ? default : cpu.X87Selectors;
        if (paragraphs)
        {
            uint instruction = (uint)InstructionPointer + (uint)(code << 4), operand = (uint)OperandPointer + (uint)(data << 4);
            Put(3, (ushort)instruction);
            Put(5, (ushort)operand);
            if (small)
            {
                Put(4, (ushort)(instruction >> 4 & 0xF000 | LastOpcode));
                Put(6, (ushort)(operand >> 4 & 0xF000));
            }
            else
            {
                *(uint*)(image + 16) = (instruction >> 4 & 0x0FFFF000) | LastOpcode;
                *(uint*)(image + 24) = operand >> 4 & 0x0FFFF000;
            }
        }
        else if (small)
        {
            Put(3, (ushort)InstructionPointer);
            Put(4, code);
            Put(5, (ushort)OperandPointer);
            Put(6, data);
        }
        else
        {
            *(uint*)(image + 12) = (uint)InstructionPointer;
            *(uint*)(image + 16) = code | (uint)LastOpcode << 16;
            *(uint*)(image + 20) = (uint)OperandPointer;
            Put(6, data);
        }
        if (registers)
        {
            for (int i = 0; i < 8; i++, size += RegisterSize)
                Unsafe.CopyBlockUnaligned(image + size, _c->XsaveArea + RegistersField + 16 * i, RegisterSize);
        }
        ulong linear = OperandAddress(size, true);
        memory.CheckAlignment(linear, field);
        memory.ProbeLinear(linear, size, true);
        for (int at = 0; at < size; at += 2)
            WritePieces(linear + (ulong)at, *(ushort*)(image + at), 2);

        void Put(int number, ushort value) => *(ushort*)(image + number * field) = value;
    }

    private void LoadEnvironment(bool registers)
    {
        bool small = IsSmallImage, paragraphs = Mode.IsParagraph(_c);
        int environment = small ? 14 : 28, field = small ? 2 : 4, size = environment + (registers ? 8 * RegisterSize : 0);
        ulong linear = OperandAddress(size, false);
        memory.CheckAlignment(linear, field);
        byte* image = stackalloc byte[108];
        for (int at = 0; at < size; at += 2)
            *(ushort*)(image + at) = (ushort)ReadPieces(linear + (ulong)at, 2);
        Materialise();
        ControlWord = (ushort)(Get(0) & 0x1F3F | 0x40);
        SetStatus(Get(1));
        FullRegisters = 0;
        for (int i = 0; i < 8; i++)
        {
            if ((Get(2) >> 2 * i & 3) != 3)
                FullRegisters |= (byte)(1 << i);
        }
        (ushort, ushort) selectors = default;
        if (paragraphs)
        {
            uint instruction = small ? (uint)(Get(4) & 0xF000) << 4 : (*(uint*)(image + 16) & 0x0FFFF000) << 4;
            uint operand = small ? (uint)(Get(6) & 0xF000) << 4 : (*(uint*)(image + 24) & 0x0FFFF000) << 4;
            InstructionPointer = instruction | Get(3);
            OperandPointer = operand | Get(5);
            LastOpcode = (ushort)(Get(4) & 0x7FF);
        }
        else
        {
            InstructionPointer = small ? Get(3) : *(uint*)(image + 12);
            OperandPointer = small ? Get(5) : *(uint*)(image + 20);
            LastOpcode = (ushort)(small ? 0 : *(ushort*)(image + 18) & 0x7FF);
            selectors = (Get(4), Get(6));
        }
        cpu.X87Selectors = selectors;
        for (int i = 0; registers && i < 8; i++)
            Unsafe.CopyBlockUnaligned(_c->XsaveArea + RegistersField + 16 * i, image + environment + RegisterSize * i, RegisterSize);

        ushort Get(int number) => *(ushort*)(image + number * field);
    }

    /// <summary>Two bits a register: 0 a number, 1 zero, 2 anything else, 3 empty.</summary>
    private ushort FullTags()
    {
        int top = StatusWord >> 11 & 7, tags = 0;
        for (int i = 0; i < 8; i++)
        {
            byte* register = _c->XsaveArea + RegistersField + 16 * (i - top & 7);
            ulong significand = *(ulong*)register;
            int exponent = *(ushort*)(register + 8) & 0x7FFF;
            int tag = (FullRegisters >> i & 1) == 0 ? 3
                : exponent == 0 && significand == 0 ? 1
                : exponent is 0 or 0x7FFF || significand >> 63 == 0 ? 2 : 0;
            tags |= tag << 2 * i;
        }
        return (ushort)tags;
    }

    private bool HasWidePointers => _i.Mnemonic is Mnemonic.Fxsave64 or Mnemonic.Fxrstor64 or Mnemonic.Xsave64 or Mnemonic.Xsaveopt64 or
        Mnemonic.Xsavec64 or Mnemonic.Xsaves64 or Mnemonic.Xrstor64 or Mnemonic.Xrstors64;

    /// <summary>The first 24 bytes of an FXSAVE or XSAVE area: with REX.W pointers of 64 bits, else of 32 with their selectors.</summary>
    private void StorePointers(ulong linear)
    {
        ulong instruction = InstructionPointer, operand = OperandPointer;
        if (!HasWidePointers)
        {
            var (code, data) = instruction == 0 ? default : cpu.X87Selectors;
            (instruction, operand) = ((uint)instruction | (ulong)code << 32, (uint)operand | (ulong)data << 32);
        }
        memory.WriteLinear(linear, *(ulong*)_c->XsaveArea, 8);
        memory.WriteLinear(linear + 8, instruction, 8);
        memory.WriteLinear(linear + 16, operand, 8);
    }

    private void LoadPointers(ulong linear)
    {
        ulong first = memory.ReadLinear(linear, 8), instruction = memory.ReadLinear(linear + 8, 8), operand = memory.ReadLinear(linear + 16, 8);
        cpu.X87Selectors = HasWidePointers ? default : ((ushort)(instruction >> 32), (ushort)(operand >> 32));
        *(ulong*)_c->XsaveArea = first;
        InstructionPointer = HasWidePointers ? instruction : (uint)instruction;
        OperandPointer = HasWidePointers ? operand : (uint)operand;
    }
}
