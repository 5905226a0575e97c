using System.Buffers.Binary;

namespace ImgKit.Machine.Devices.Virtio;

public abstract partial class VirtioPci
{
    /// <summary>The legacy registers in BAR 0 (section 4.1.4.8).</summary>
    private sealed class LegacyPorts(VirtioPci device) : IPortHandler
    {
        private int ConfigAt => device.Msix!.IsEnabled ? 24 : 20;

        public uint PortRead(ushort port, int size)
        {
            var queue = device.Selected;
            return port switch
            {
                0 => (uint)device.Offered,
                4 => (uint)device._driverFeatures,
                8 => queue is { IsEnabled: true } ? (uint)(queue.DescAddress >> 12) : 0,
                12 => queue?.MaximumSize ?? 0,
                14 => device._select,
                18 => device.ReadStatus(),
                19 => device.TakeIsr(),
                20 when device.Msix!.IsEnabled => device._configVector,
                22 when device.Msix!.IsEnabled => queue?.Vector ?? NoVector,
                _ when port >= ConfigAt => device.ReadDeviceConfig(port - ConfigAt, size),
                _ => 0,
            };
        }

        public void PortWrite(ushort port, uint value, int size)
        {
            var queue = device.Selected;
            switch (port)
            {
                case 4:
                    device._legacyDriver = true;
                    device._driverFeatures = value & device.Offered;
                    break;
                case 8:
                    device._legacyDriver = true;
                    if (value == 0)
                        device.BeginReset();
                    else
                        queue?.PlaceLegacy((ulong)value << 12);
                    break;
                case 14:
                    device._select = (ushort)value;
                    break;
                case 16:
                    device.Notify(value & 0xFFFF);
                    break;
                case 18:
                    if (value != 0)
                        device._legacyDriver = true;
                    device.WriteStatus((byte)value);
                    break;
                case 20 when device.Msix!.IsEnabled:
                    device._configVector = device.AcceptVector(value);
                    break;
                case 22 when device.Msix!.IsEnabled:
                    if (queue != null)
                        queue.Vector = device.AcceptVector(value);
                    break;
                default:
                    if (port >= ConfigAt)
                        device.WriteDeviceConfig(port - ConfigAt, value, size);
                    break;
            }
        }
    }

    /// <summary>The modern structures in BAR 4 (sections 4.1.4.3 to 4.1.4.6).</summary>
    private sealed class ModernRegisters(VirtioPci device) : IMmioHandler
    {
        public ulong MmioRead(ulong offset, int size) => (offset & ~(ulong)(PartSize - 1)) switch
        {
            CommonAt => size == 8 ? ReadCommon((int)offset) | ReadCommon((int)offset + 4) << 32 : Cut(ReadCommon((int)offset), size),
            IsrAt => offset == IsrAt ? device.TakeIsr() : 0u,
            DeviceAt => size == 8
                ? device.ReadDeviceConfig((int)(offset - DeviceAt), 4) | (ulong)device.ReadDeviceConfig((int)(offset - DeviceAt) + 4, 4) << 32
                : device.ReadDeviceConfig((int)(offset - DeviceAt), size),
            _ => 0,
        };

        public void MmioWrite(ulong offset, ulong value, int size)
        {
            switch (offset & ~(ulong)(PartSize - 1))
            {
                case CommonAt:
                    WriteCommon((int)offset, (uint)value, size);
                    if (size == 8)
                        WriteCommon((int)offset + 4, (uint)(value >> 32), 4);
                    break;
                case DeviceAt:
                    device.WriteDeviceConfig((int)(offset - DeviceAt), (uint)value, Math.Min(size, 4));
                    if (size == 8)
                        device.WriteDeviceConfig((int)(offset - DeviceAt) + 4, (uint)(value >> 32), 4);
                    break;
                case NotifyAt:
                    device.Notify((uint)(offset - NotifyAt) / 4);
                    break;
            }
        }

        private static ulong Cut(ulong value, int size) => value & (1ul << 8 * size) - 1;

        // The fields in registers of four bytes, so that any narrower read is a part of one.
        private ulong ReadCommon(int offset)
        {
            var queue = device.Selected;
            uint word = (offset & ~3) switch
            {
                0 => device._deviceFeatureSelect,
                4 => device._deviceFeatureSelect < 2 ? (uint)(device.Offered >> (int)(32 * device._deviceFeatureSelect)) : 0,
                8 => device._driverFeatureSelect,
                12 => device._driverFeatureSelect < 2 ? (uint)(device._driverFeatures >> (int)(32 * device._driverFeatureSelect)) : 0,
                16 => device._configVector | (uint)device._queues.Length << 16,
                20 => device.ReadStatus() | (uint)device._generation << 8 | (uint)device._select << 16,
                24 => queue == null ? 0 : queue.Size | (uint)queue.Vector << 16,
                28 => queue == null ? 0 : (queue.IsEnabled ? 1u : 0) | (uint)queue.Index << 16,
                32 => (uint)(queue?.DescAddress ?? 0),
                36 => (uint)((queue?.DescAddress ?? 0) >> 32),
                40 => (uint)(queue?.AvailAddress ?? 0),
                44 => (uint)((queue?.AvailAddress ?? 0) >> 32),
                48 => (uint)(queue?.UsedAddress ?? 0),
                52 => (uint)((queue?.UsedAddress ?? 0) >> 32),
                _ => 0,
            };
            return word >> (8 * (offset & 3));
        }

        private void WriteCommon(int offset, uint value, int size)
        {
            var queue = device.Selected;
            switch (offset)
            {
                case 0:
                    device._deviceFeatureSelect = value;
                    break;
                case 8:
                    device._driverFeatureSelect = value;
                    break;
                case 12 when device._driverFeatureSelect < 2 && (device._status & VirtioStatus.FeaturesOk) == 0:
                    int shift = (int)(32 * device._driverFeatureSelect);
                    device._driverFeatures = device._driverFeatures & ~(0xFFFFFFFFul << shift) | (ulong)value << shift;
                    break;
                case 16:
                    device._configVector = device.AcceptVector(value & 0xFFFF);
                    break;
                case 20:
                    device.WriteStatus((byte)value);
                    break;
                case 22:
                    device._select = (ushort)value;
                    break;
                case 24 when queue is { IsEnabled: false } && value - 1 < queue.MaximumSize && (value & (value - 1)) == 0:
                    queue.Size = (ushort)value;
                    break;
                case 26 when queue != null:
                    queue.Vector = device.AcceptVector(value & 0xFFFF);
                    break;
                case 28 when queue != null && (value & 0xFFFF) == 1:
                    queue.IsEnabled = true;
                    break;
                case >= 32 and < 56 when queue is { IsEnabled: false } && size >= 4:
                    WriteAddress(queue, offset, value);
                    break;
            }
        }

        private static void WriteAddress(VirtQueue queue, int offset, uint value)
        {
            ulong Half(ulong old) => (offset & 4) == 0 ? old & ~0xFFFFFFFFul | value : old & 0xFFFFFFFF | (ulong)value << 32;
            switch (offset & ~7)
            {
                case 32:
                    queue.DescAddress = Half(queue.DescAddress);
                    break;
                case 40:
                    queue.AvailAddress = Half(queue.AvailAddress);
                    break;
                case 48:
                    queue.UsedAddress = Half(queue.UsedAddress);
                    break;
            }
        }
    }

    /// <inheritdoc/>
    public override uint ConfigRead(int offset, int size)
    {
        if (_pciAccess != 0 && offset == _pciAccess + 16 && PciAccess(out uint at, out int length))
            BinaryPrimitives.WriteUInt32LittleEndian(Config[(_pciAccess + 16)..], (uint)new ModernRegisters(this).MmioRead(at, length));
        return base.ConfigRead(offset, size);
    }

    /// <inheritdoc/>
    public override void ConfigWrite(int offset, uint value, int size)
    {
        base.ConfigWrite(offset, value, size);
        if (offset < 0x28)
            FollowBars();
        if (_pciAccess != 0 && offset == _pciAccess + 16 && PciAccess(out uint at, out int length))
            new ModernRegisters(this).MmioWrite(at, BinaryPrimitives.ReadUInt32LittleEndian(Config[(_pciAccess + 16)..]), length);
    }

    /// <summary>The window in configuration space to the registers (section 4.1.4.9), for firmware that cannot reach a BAR.</summary>
    private bool PciAccess(out uint at, out int length)
    {
        at = BinaryPrimitives.ReadUInt32LittleEndian(Config[(_pciAccess + 8)..]);
        length = (int)BinaryPrimitives.ReadUInt32LittleEndian(Config[(_pciAccess + 12)..]);
        return Config[_pciAccess + 4] == ModernBar && length is 1 or 2 or 4 && at < 4 * PartSize && at % (uint)length == 0;
    }
}
