namespace ImgKit.Cpu.Models;

/// <summary>A <c>-cpu</c> option that names no model or flag, or cannot be met. The message is one line for the user.</summary>
public sealed class CpuModelException(string message) : Exception(message);
