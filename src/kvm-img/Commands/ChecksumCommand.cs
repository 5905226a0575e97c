using System.Security.Cryptography;
using ImgKit.Block;
using ImgKit.Block.Jobs.Digest;
using ImgKit.CommandLine;

namespace ImgKit.Programs.Img;

/// <summary><c>checksum</c>: a digest of what a guest sees.</summary>
internal sealed class ChecksumCommand : Command
{
    protected override CommandSpec Declare() => new()
    {
        Name = "checksum",
        Summary = "Print a digest of an image's content, equal for equal content in any format",
        Operands = "FILE...",
        Description = "The digest 'content' is quick: it uses all processors and does not read holes. The others are those of the raw disk: "
            + "sha256 is what sha256sum prints for a raw copy.",
        Options =
        [
            CommonOptions.FormatOption(),
            CommonOptions.ImageOptsOption,
            new('a', "algorithm", "NAME", "content (default), sha256, sha512, sha1 or md5") { Choices = ["content", "sha256", "sha512", "sha1", "md5"] },
            new('l', "snapshot", "SNAPSHOT", "of the content of an internal snapshot"),
            CommonOptions.ForceShareOption,
            .. CommonOptions.ProgressOptions,
            CommonOptions.QuietOption,
            .. CommonOptions.Always,
        ],
    };

    public override int Run(string[] arguments)
    {
        var common = new CommonOptions();
        string algorithm = "content";
        SnapshotChoice? snapshot = null;
        var operands = Parse(arguments, common, (id, value) =>
        {
            if (id == 'a')
                algorithm = value;
            else
                snapshot = SnapshotChoice.Parse(value);
        });
        if (operands.IsEmpty)
            throw new UsageException("Expecting image file names");
        HashAlgorithmName? flat = algorithm switch
        {
            "content" => null,
            "sha256" => HashAlgorithmName.SHA256,
            "sha512" => HashAlgorithmName.SHA512,
            "sha1" => HashAlgorithmName.SHA1,
            "md5" => HashAlgorithmName.MD5,
            _ => throw new UsageException($"Unknown algorithm '{algorithm}'"),
        };
        foreach (string name in operands)
        {
            using var image = ImageAccess.Open(common, name, new OpenSettings { ReadOnly = true });
            var content = snapshot is null ? image : snapshot.OpenIn(image);
            string digest;
            using (var progress = new Progress(common, 1, content.Length))
            {
                digest = flat is { } f ? DigestJob.FlatDigestOf(content, f, progress)
                    : DigestJob.ContentDigestOf(content, Environment.ProcessorCount, progress);
                progress.Complete();
            }
            OutputWriter.Out.WriteLine($"{digest}  {name}");
        }
        return 0;
    }
}
