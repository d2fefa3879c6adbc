// What the page says, in the languages that it has.
export const WORDS = {
  en: {
    other: "中文", model: "Model", token: "This server asks for a token", enter: "Enter",
    invitation: "Drop pictures here, paste one, or", choose: "Choose pictures", photo: "Take a photo",
    privacy: "Pictures go to this server only, stay in its memory, and are forgotten with the answer.",
    overlay: "Show what the model looked at", about: "About this model", shoot: "Take it", cancel: "Cancel",
    waiting: (n) => `${n} waiting`, done: (n) => (n === 1 ? "1 picture answered" : `${n} pictures answered`),
    unsure: "Not sure", among: "one of", novel: "Unlike anything that it was trained on",
    none: "no label", present: "labels", picture: (name) => `Picture ${name}`, looked: (label) => `Where the evidence for ${label} lies`,
    unseen: "cannot be shown here", nocamera: "The camera cannot be used", offline: "The server cannot be reached",
    task: "Task", network: "Network", classes: "Classes", scores: "Scores on held-out data (95 % interval)", backend: "Runs on",
    input: "Input", trouble: {
      unreadable: "This file cannot be read as a picture", unsupported: "This is not a kind of picture that can be read",
      empty: "The file is empty", too_large: "The picture is too large", unavailable: "The server is busy: try again soon",
      too_many: "Too many requests: try again soon", deadline: "That took too long", token: "The token is wrong",
      bug: "The server made a mistake", not_finite: "The model gave no usable answer",
    },
  },
  zh: {
    other: "English", model: "模型", token: "此服务器需要令牌", enter: "进入",
    invitation: "将图片拖到此处、粘贴，或", choose: "选择图片", photo: "拍照",
    privacy: "图片只发送到此服务器，仅保存在内存中，得出结果后即被丢弃。",
    overlay: "显示模型关注的区域", about: "关于此模型", shoot: "拍摄", cancel: "取消",
    waiting: (n) => `${n} 张等待中`, done: (n) => `${n} 张图片已有结果`,
    unsure: "不确定", among: "可能是", novel: "与训练数据都不相似",
    none: "无标签", present: "标签", picture: (name) => `图片 ${name}`, looked: (label) => `支持“${label}”的证据所在`,
    unseen: "无法在此显示", nocamera: "无法使用摄像头", offline: "无法连接服务器",
    task: "任务", network: "网络", classes: "类别", scores: "留出数据上的得分（95% 区间）", backend: "运行于",
    input: "输入", trouble: {
      unreadable: "无法将此文件作为图片读取", unsupported: "不支持此类文件",
      empty: "文件为空", too_large: "图片过大", unavailable: "服务器繁忙，请稍后再试",
      too_many: "请求过多，请稍后再试", deadline: "处理超时", token: "令牌错误",
      bug: "服务器出错", not_finite: "模型没有给出可用的结果",
    },
  },
};
