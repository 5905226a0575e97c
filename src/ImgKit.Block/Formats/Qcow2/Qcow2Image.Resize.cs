namespace ImgKit.Block.Formats.Qcow2;

internal sealed partial class Qcow2Image
{
    /// <summary>Gives every cluster of a range space. It reads as zeroes afterwards (as before).</summary>
    internal void Preallocate(long offset, long length, Preallocation preallocation)
    {
        using var alone = _gate.EnterExclusive();
        PreallocateAlone(offset, length, preallocation);
    }

    private void PreallocateAlone(long offset, long length, Preallocation preallocation)
    {
        long first = offset >> _clusterBits, last = (offset + length - 1) >> _clusterBits;
        long end = 0;
        long c = first;
        lock (_meta)
        {
            while (c <= last)
            {
                BeforeMetadataChange();
                var slice = SliceForWrite(c << _clusterBits);
                int index = (int)c & ((1 << _sliceBits) - 1);
                long n = Math.Min(last - c + 1, (1L << _sliceBits) - index);
                var (host, got) = _hasDataFile ? (c << _clusterBits, n) : _refcounts.AllocateRun(n);
                slice = SliceForWrite(c << _clusterBits);
                for (int i = 0; i < got; i++)
                {
                    var (old, bitmap) = EntryAt(slice, index + i);
                    ulong entry = (ulong)(host + ((long)i << _clusterBits)) | Qcow2Layout.Copied;
                    if (_extended)
                        slice.SetExtendedEntry(index + i, entry, preallocation is Preallocation.Falloc or Preallocation.Full ? uint.MaxValue : bitmap & ~(ulong)uint.MaxValue);
                    else
                        slice.SetEntry(index + i, entry);
                    FreeEntry(old, FreeReason.Other);
                }
                if (!_hasDataFile)
                    PreallocateSpace(host, got << _clusterBits, preallocation);
                end = Math.Max(end, host + (got << _clusterBits));
                c += got;
            }
            if (!_hasDataFile && _file.Length < end)
                _file.Resize(end);
            CommitAll();
        }
    }

    private void PreallocateSpace(long host, long bytes, Preallocation preallocation)
    {
        // Behind the file's end zeroes need no writing; before it there may be anything.
        if (host < _file.Length)
        {
            long n = Math.Min(bytes, _file.Length - host);
            _file.WriteZeroes(host, n);
            host += n;
            bytes -= n;
        }
        if (bytes == 0 || preallocation == Preallocation.Metadata)
            return;
        if (_file.Length < host)
            _file.Resize(host);
        _file.Resize(host + bytes, new ResizeOptions(preallocation));
    }
}
